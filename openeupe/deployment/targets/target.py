"""Interface of export targets: write a program as a file."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from openeupe.deployment.quiet import quiet
from openeupe.encoders import Encoder
from openeupe.encoders.engines import Engine, Precision
from openeupe.encoders.export_layout import Pixels, Size
from openeupe.encoders.weights import first_line
from openeupe.errors import InputError


@dataclass
class Job:
    """One file to write.

    size: height and width; None leaves them to the caller of the file.
    opset: of ONNX, for targets that go by way of it; None: its default.
    calibration: `[N, 3, H, W]` images as the file takes them, for int8.
    fidelity: agreement of a written file with the encoder on other images than those of
        calibration and parity check: the lower mean cosine of both kinds of tokens.
    limit: the fidelity that int8 must reach; slightly above the parity limit.
    report: called with progress messages.
    notes: the target's choices, saved in `export.json`.
    """

    encoder: Encoder
    size: Size | None
    pixels: Pixels
    precision: Precision
    opset: int | None = None
    calibration: Tensor | None = None
    fidelity: Callable[[Path], float] = lambda path: 1.0
    limit: float = 0.992
    report: Callable[[str], None] = lambda line: None
    notes: dict[str, object] = field(default_factory=dict)


class Target(Engine):
    """An engine whose files can be written as well.

    packages: what must be importable to write a file.
    dynamic: whether height and width may be left open.
    by_onnx: whether it is ONNX, or made by way of it, so that an opset means something.
    example: Python lines that run a file: `images` (NumPy) and `file` in, `cls`, `patches` out.
    """

    packages: tuple[str, ...] = ()
    dynamic: bool = True
    by_onnx: bool = False
    example: str

    @contextlib.contextmanager
    def compiling(self, encoder: Encoder) -> Iterator[None]:
        """Silence the engine's compiler, and report its errors in one line."""
        try:
            with quiet():
                yield
        except InputError:
            raise
        except Exception as error:  # compilers raise errors of many kinds
            raise InputError(
                f"{encoder.name} cannot be compiled for {self.name} ({first_line(error)}): "
                "try target onnx"
            ) from error

    def write(self, job: Job, path: Path) -> None:
        """Write one file (or folder) to `path`, whose name ends in `suffix`."""
        raise NotImplementedError
