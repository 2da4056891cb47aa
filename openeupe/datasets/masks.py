"""Data sets with masks: plain folders, ADE20K, procedural scenes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import Field, model_validator

from openeupe.config import Config
from openeupe.datasets.dense import DenseScenes, PartFolders, both_checked, unpacked
from openeupe.datasets.dense_files import IGNORE, MaskFiles, by_stem
from openeupe.errors import InputError
from openeupe.plain_yaml import parse_yaml

ADE_CLASSES = 150


class MaskFolders(Config):
    """Folders of images and masks, with `classes` or `names` of the values."""

    layout: Literal["folder"] = "folder"
    path: Path = Field(description="The data set's folder")
    train: PartFolders
    test: PartFolders
    check: bool = Field(True, description="Read every image's header and every mask first")
    classes: int | tuple[str, ...] | None = Field(
        None, description="Their count or names: values 0, 1, ... (1, 2, ... if zero_is_ignore)"
    )
    names: Path | None = Field(
        None,
        description="Instead of classes: YAML of value: name (or with such a mapping under the "
        "key classes or names); the values may have gaps",
    )
    ignore: tuple[int, ...] = Field((), description="Values without a label; 255 is one anyway")
    zero_is_ignore: bool = Field(False, description="0 has no label; value 1 is the first class")

    @model_validator(mode="after")
    def _classes_given(self) -> Self:
        if (self.classes is None) == (self.names is None):
            raise ValueError("layout folder needs either classes or names")
        return self

    def open(self, root: Path) -> tuple[MaskFiles, MaskFiles]:
        """(train, test), with the same classes under the same numbers.

        Args:
            root: the folder that relative `path` and `names` start from.

        Raises:
            InputError: for missing or empty folders, masks without image, files that cannot be
                read, masks of another size than their image, values that are no class.
        """
        path = unpacked(root / self.path.expanduser())
        left = {*self.ignore, *([0] if self.zero_is_ignore else [])}
        classes, numbers = self._meaning(root, left)
        train, test = (
            MaskFiles(path, part.files(path, "mask"), classes, numbers, left)
            for part in (self.train, self.test)
        )
        return both_checked(train, test, self.check)

    def _meaning(self, root: Path, left: set[int]) -> tuple[list[str], dict[int, int]]:
        """Class names, and class numbers of pixel values. Values in `left` have none."""
        first = int(self.zero_is_ignore)
        if self.names is not None:
            named = _read_names(root / self.names.expanduser())
        elif isinstance(self.classes, int):
            named = {first + k: str(first + k) for k in range(self.classes)}
        else:
            named = {first + k: name for k, name in enumerate(self.classes or ())}
        values = [value for value in sorted(named) if value not in left]
        if not 1 <= len(values) < IGNORE or not 0 <= values[0] <= values[-1] < 1 << 16:
            raise InputError(f"masks need 1 to {IGNORE - 1} classes with values from 0 to 65535")
        return [named[v] for v in values], {v: number for number, v in enumerate(values)}


class ADE20K(Config):
    """ADEChallengeData2016 as it is unpacked; 0 ("other") is not evaluated, 1..150 -> 0..149."""

    layout: Literal["ade20k"] = "ade20k"
    path: Path = Field(description="That folder, or the one around it")
    check: bool = Field(True, description="Read every image's header and every mask first")

    def open(self, root: Path) -> tuple[MaskFiles, MaskFiles]:
        """(train, test), which are its training and validation; as `MaskFolders.open`."""
        path = unpacked(root / self.path.expanduser(), "ADEChallengeData2016")
        classes = _ade_names(path / "objectInfo150.txt")
        numbers = {value: value - 1 for value in range(1, ADE_CLASSES + 1)}
        train, test = (
            MaskFiles(
                path,
                by_stem(path / "images" / part, path / "annotations" / part, "mask"),
                classes,
                numbers,
                [0],
            )
            for part in ("training", "validation")
        )
        return both_checked(train, test, self.check)


MaskData = Annotated[MaskFolders | ADE20K | DenseScenes, Field(discriminator="layout")]


def _ade_names(table: Path) -> list[str]:
    """First word of each class's names in ADE20K's own table. Without the table its numbers."""
    if not table.is_file():
        return [str(number) for number in range(1, ADE_CLASSES + 1)]
    lines = [line.split("\t") for line in table.read_text(encoding="utf-8").splitlines()]
    names = {int(line[0]): line[-1].split(",")[0].strip() for line in lines if line[0].isdigit()}
    if sorted(names) != list(range(1, ADE_CLASSES + 1)):
        raise InputError(f"{table} does not name classes 1 to {ADE_CLASSES}: unpack it again")
    return [names[number] for number in range(1, ADE_CLASSES + 1)]


def _read_names(file: Path) -> dict[int, str]:
    try:
        content = parse_yaml(file.read_text(encoding="utf-8"), words=True)
        content = content.get("classes") or content.get("names") or content
        names = {int(value): str(name) for value, name in content.items()}
        if len(names) < len(content):
            raise ValueError("a value is given twice")
        return names
    except (OSError, yaml.YAMLError, UnicodeDecodeError, AttributeError, ValueError) as error:
        line = " ".join(str(error).split())
        raise InputError(f"names {file} is not a YAML mapping of value: name ({line})") from None
