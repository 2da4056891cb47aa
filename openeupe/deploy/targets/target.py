"""What every target offers: a way to write a program, and a way to run what was written."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from openeupe.deploy.program import Pixels, Size
from openeupe.deploy.quiet import quiet
from openeupe.encoders import Encoder, Tokens
from openeupe.encoders.weights import first_line
from openeupe.errors import InputError

Precision = Literal["fp32", "fp16", "bf16", "int8"]
# Images as the file takes them, `[B, 3, H, W]` float32 or uint8 -> float32 tokens.
Session = Callable[[Tensor], Tokens]


@dataclass
class Job:
    """One file to write.

    size: height and width; None leaves them to the caller of the file.
    opset: of ONNX, for targets that go by way of it; None: its default.
    calibration: `[N, 3, H, W]` photos as the file takes them, for int8.
    fidelity: how near a written file comes to the encoder on photos of neither calibration nor
        proof: the lower mean cosine of both kinds of tokens.
    limit: the fidelity that int8 must reach; a little more than its proof asks for.
    say: takes lines for the user while long work goes on.
    notes: what the target has to say about its choices; it ends in `export.json`.
    """

    encoder: Encoder
    size: Size | None
    pixels: Pixels
    precision: Precision
    opset: int | None = None
    calibration: Tensor | None = None
    fidelity: Callable[[Path], float] = lambda path: 1.0
    limit: float = 0.992
    say: Callable[[str], None] = lambda line: None
    notes: dict[str, Any] = field(default_factory=dict)


class Target:
    """A file format with the engine that runs it.

    precisions: those it can have; the first is the default.
    packages: what must be importable to write it; `runtime` what must be to run it.
    extra: the extra of this package that installs them.
    batch: the batch size a file is fixed to; None: any.
    dynamic: whether height and width may be left open.
    by_onnx: whether it is ONNX, or made by way of it, so that an opset means something.
    runs_here: whether this machine can run a file; else its parity stays unproved, and says so.
    example: Python lines that run a file: `images` (NumPy) and `file` in, `cls`, `patches` out.
    """

    name: str
    suffix: str
    precisions: tuple[Precision, ...]
    packages: tuple[str, ...] = ()
    runtime: tuple[str, ...] = ()
    extra: str | None = None
    batch: int | None = None
    dynamic: bool = True
    by_onnx: bool = False
    runs_here: bool = True
    example: str

    def require(self, packages: tuple[str, ...]) -> None:
        """Raise `InputError` if a package is missing."""
        missing = [name for name in packages if importlib.util.find_spec(name) is None]
        if missing:
            raise InputError(
                f"{self.name} needs {missing[0]}: pip install 'openeupe[{self.extra}]'"
            )

    @contextlib.contextmanager
    def compiling(self, encoder: Encoder) -> Iterator[None]:
        """Silence while the engine's compiler works, and one line for whatever it raises."""
        try:
            with quiet():
                yield
        except InputError:
            raise
        except Exception as error:  # compilers raise errors of many kinds
            raise InputError(
                f"{encoder.name} cannot be compiled for {self.name} ({first_line(error)}): "
                "try --to onnx"
            ) from error

    def write(self, job: Job, path: Path) -> None:
        """Write one file (or folder) to `path`, whose name ends in `suffix`."""
        raise NotImplementedError

    def open(self, path: Path, precision: Precision, threads: int, batch: int | None) -> Session:
        """Load a file for running.

        Args:
            threads: of the engine.
            batch: the one batch size that will be asked for, which some engines profit from.
        """
        raise NotImplementedError

    def files(self, path: Path) -> list[Path]:
        """All that was written for `path`."""
        return [path]
