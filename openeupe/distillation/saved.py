"""Read and check `distillation.json` of a finished student."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from openeupe.limits import WIDTH
from openeupe.plain_json import Saved, read_checked

_Width = Annotated[int, Field(gt=0, le=WIDTH)]


class _Teacher(Saved):
    encoder: str
    cls_dim: _Width
    patch_dim: _Width


class _Start(Saved):
    encoder: str


class _Info(Saved):
    run: str
    stage: str
    seed: int
    steps: int
    images: int
    head_hidden: _Width
    teachers: dict[str, _Teacher]
    start: _Start | None = None
    device: str = ""
    versions: dict[str, str] = Field({})


def read_info(path: Path) -> dict[str, Any]:
    """Read `distillation.json`: teachers and their widths, stage, seed, steps, versions.

    Raises:
        InputError: naming the file and the field that is missing or wrong.
    """
    return read_checked(path, _Info, "copy the student again")
