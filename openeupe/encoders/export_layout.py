"""Layout of an exported folder: `export.json` and its files."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from openeupe.encoders.engines import ENGINES
from openeupe.errors import InputError
from openeupe.identity import files_identity
from openeupe.limits import RESOLUTION, WIDTH
from openeupe.names import Name
from openeupe.plain_json import Saved, read_checked

FORMAT = 2
ABOUT = "export.json"
AGAIN = "export the encoder again"

Pixels = Literal["float32", "uint8"]
Size = tuple[int, int]  # height, width in pixels

_Width = Annotated[int, Field(gt=0, le=WIDTH)]


def _size(key: str) -> str:
    found = re.fullmatch(r"any|([1-9]\d{0,4})x([1-9]\d{0,4})", key)
    if not found or any(int(length) > RESOLUTION for length in found.groups() if length):
        raise ValueError(f"{key!r} is no size such as 224x224")
    return key


class _Encoder(Saved):
    name: str
    args: dict[str, Any]
    cls_dim: _Width
    patch_dim: _Width
    patch_size: _Width
    resolution: Annotated[int, Field(gt=0, le=RESOLUTION)]


class _Files(Saved):
    target: str
    files: dict[Annotated[str, AfterValidator(_size)], Name] = Field(min_length=1)


class _About(_Files):
    source: str
    encoder: _Encoder
    precision: str
    pixels: Pixels
    bytes: dict[str, int] = Field(min_length=1)
    contents: str
    parity: list[Any]


def is_export(path: Path) -> bool:
    """Whether a folder is one that `openeupe export` wrote."""
    return (path / ABOUT).is_file()


def named_files(folder: Path) -> tuple[str, list[str]]:
    """Read target and file names of `export.json`. Other fields may be wrong.

    Raises:
        InputError: if these are missing or wrong.
    """
    about = read_checked(folder / ABOUT, _Files, AGAIN)
    return about["target"], list(about["files"].values())


def read_about(folder: Path) -> dict[str, Any]:
    """Read and check `export.json`.

    Raises:
        InputError: if it is missing, damaged, or of another version.
    """
    path = folder / ABOUT
    about = read_checked(path, _About, AGAIN)
    if about.get("format") != FORMAT or about["target"] not in ENGINES:
        raise InputError(f"{path} was made by another version: update openeupe, or export again")
    if about["precision"] not in ENGINES[about["target"]].precisions:
        raise InputError(f"{path}: precision is missing or wrong: export the encoder again")
    for name in about["files"].values():
        if not (folder / name).exists():
            raise InputError(f"{folder / name} is missing: copy the whole exported folder")
    return about


def file_for(folder: Path, about: Mapping[str, Any], size: Size) -> str:
    """Name of the file that takes images of a size.

    Raises:
        InputError: if the folder has none.
    """
    files: Mapping[str, str] = about["files"]
    key = "any" if "any" in files else size_name(size)
    if key not in files:
        raise InputError(
            f"{folder} has no file for {key} pixels, only for {', '.join(files)}: export "
            f"with resolution {key}, or dynamic"
        )
    return files[key]


def contents(folder: Path, target: str, files: Mapping[str, str]) -> str:
    """Identity of the exported files' bytes."""
    every = [part for name in files.values() for part in ENGINES[target].files(folder / name)]
    inner = [sorted(part.rglob("*")) if part.is_dir() else [part] for part in every]
    return files_identity(folder, [file for files in inner for file in files if file.is_file()])


def check_contents(folder: Path, about: Mapping[str, Any]) -> str:
    """Identity of the files, which must equal the exported and verified ones.

    Raises:
        InputError: if they are damaged or incomplete.
    """
    found = contents(folder, about["target"], about["files"])
    if found != about["contents"]:
        raise InputError(
            f"{folder}: files differ from what was exported ({', '.join(about['files'].values())}):"
            " copy the whole folder, or export the encoder again"
        )
    return found


def size_name(size: Sequence[int]) -> str:
    """(512, 384) -> "512x384"."""
    return "x".join(str(length) for length in size)


def file_key(size: Size | None) -> str:
    """Key of a size in `files`. "any" if height and width are dynamic."""
    return "any" if size is None else size_name(size)


def parse_size(key: str) -> Size | None:
    """The reverse of `file_key`."""
    if key == "any":
        return None
    height, width = key.split("x")
    return int(height), int(width)
