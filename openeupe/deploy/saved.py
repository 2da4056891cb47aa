"""What `export.json` must hold before anything is opened by it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from openeupe.errors import InputError
from openeupe.limits import SIDE, WIDTH
from openeupe.names import Name
from openeupe.plain_json import read_json

AGAIN = "export the encoder again"
_Width = Annotated[int, Field(gt=0, le=WIDTH)]


def _size(key: str) -> str:
    found = re.fullmatch(r"any|([1-9]\d{0,4})x([1-9]\d{0,4})", key)
    if not found or any(int(side) > SIDE for side in found.groups() if side):
        raise ValueError(f"{key!r} is no size such as 224x224")
    return key


class _Saved(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)


class _Encoder(_Saved):
    name: str
    args: dict[str, Any]
    cls_dim: _Width
    patch_dim: _Width
    patch_size: _Width
    resolution: Annotated[int, Field(gt=0, le=SIDE)]


class _About(_Saved):
    source: str
    encoder: _Encoder
    target: str
    precision: str
    pixels: Literal["float32", "uint8"]
    files: dict[Annotated[str, AfterValidator(_size)], Name] = Field(min_length=1)
    bytes: dict[str, int] = Field(min_length=1)
    parity: list[Any]


def read_about(path: Path) -> dict[str, Any]:
    """The mapping in `export.json`.

    Raises:
        InputError: naming the file and the field that is missing or wrong.
    """
    about: dict[str, Any] = read_json(path, AGAIN)
    try:
        _About.model_validate(about)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise InputError(
            f"{path} does not describe an export ({field}: {first['msg']}): {AGAIN}"
        ) from None
    return about
