"""Settings of an export."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from openeupe.config import Config
from openeupe.deployment.program import parse_sizes
from openeupe.encoders.engines import Precision
from openeupe.encoders.export_layout import Pixels, Size
from openeupe.limits import RESOLUTION

_Pixels = Annotated[int, Field(gt=0, le=RESOLUTION)]


def read_sizes(value: Any) -> Any:
    """Pairs of height and width from `256`, `"256,512x384"` or pairs."""
    if isinstance(value, int):
        return [(value, value)]
    return parse_sizes(value) if isinstance(value, str) else value


_Sizes = Annotated[list[tuple[_Pixels, _Pixels]], BeforeValidator(read_sizes)]


class ExportConfig(Config):
    """What kind of file is written."""

    target: str = Field("onnx", description="onnx, openvino, executorch, aoti or coreml")
    precision: Precision | None = Field(None, description="[the target's most exact]")
    resolution: _Sizes | None = Field(
        None,
        min_length=1,
        description="(height, width) of each file, or 256, or `256,512x384`  [the encoder's own]",
    )
    dynamic: bool = Field(
        False, description="one file that takes any multiple of the patch size instead"
    )
    pixels: Pixels = Field("float32", description="what the file takes: float32 in [0, 1] or uint8")
    opset: int | None = Field(None, description="of ONNX, for onnx and openvino files  [20]")

    def sizes(self, native: int) -> list[Size | None]:
        """The size of each file; None: any."""
        return [None] if self.dynamic else [*(self.resolution or [(native, native)])]
