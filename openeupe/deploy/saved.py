"""What `export.json` must hold before anything is opened by it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from openeupe.limits import SIDE, WIDTH
from openeupe.names import Name
from openeupe.plain_json import Saved, read_checked

AGAIN = "export the encoder again"
_Width = Annotated[int, Field(gt=0, le=WIDTH)]


def _size(key: str) -> str:
    found = re.fullmatch(r"any|([1-9]\d{0,4})x([1-9]\d{0,4})", key)
    if not found or any(int(side) > SIDE for side in found.groups() if side):
        raise ValueError(f"{key!r} is no size such as 224x224")
    return key


class _Encoder(Saved):
    name: str
    args: dict[str, Any]
    cls_dim: _Width
    patch_dim: _Width
    patch_size: _Width
    resolution: Annotated[int, Field(gt=0, le=SIDE)]


class _Files(Saved):
    target: str
    files: dict[Annotated[str, AfterValidator(_size)], Name] = Field(min_length=1)


class _About(_Files):
    source: str
    encoder: _Encoder
    precision: str
    pixels: Literal["float32", "uint8"]
    bytes: dict[str, int] = Field(min_length=1)
    contents: str
    parity: list[Any]


def named_files(path: Path) -> tuple[str, list[str]]:
    """Target and names of the files in `export.json`, whatever else is wrong with it.

    Raises:
        InputError: if these are missing or wrong.
    """
    about = read_checked(path, _Files, AGAIN)
    return about["target"], list(about["files"].values())


def read_about(path: Path) -> dict[str, Any]:
    """The mapping in `export.json`.

    Raises:
        InputError: naming the file and the field that is missing or wrong.
    """
    return read_checked(path, _About, AGAIN)
