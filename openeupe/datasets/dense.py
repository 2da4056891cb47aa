"""Where images with masks or depths are: plain folders, ADE20K, NYUv2, procedural scenes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import yaml
from pydantic import Field, model_validator

from openeupe.config import Config
from openeupe.datasets.dense_files import IGNORE, DepthFiles, MaskFiles, Pairs, by_stem
from openeupe.datasets.interfaces import DepthImages, MaskedImages
from openeupe.datasets.layouts import only_read
from openeupe.datasets.scenes.dataset import Scenes, Split
from openeupe.errors import InputError
from openeupe.plain_yaml import parse_yaml

ADE_CLASSES = 150
NYU_LISTS = {
    "train": "nyudepthv2_train_files_with_gt.txt",
    "test": "nyudepthv2_test_files_with_gt.txt",
}
NYU_FOLDERS = {"train": "sync", "test": "official_splits/test"}

P = TypeVar("P", bound=Pairs)


class Folders(Config):
    """One part of a plain folder layout, inside the data set's path.

    labels: files named as their images but for the ending; they say which images there are.
    """

    images: Path
    labels: Path


class DenseScenes(Scenes):
    """Scenes as images with masks: `classes` are those of the masks."""

    def __init__(self, count: int, **settings: Any) -> None:
        super().__init__(count, **settings)
        self.classes = self.mask_classes


class DenseData(Config):
    """What masks and depths have in common."""

    path: Path | None = Field(None, description="The data set's folder")
    train: Folders | None = Field(None, description="Layout folder")
    test: Folders | None = Field(None, description="Layout folder")
    check: bool = Field(
        True, description="Read every image's header and every label file before long work"
    )
    count: int = Field(400, ge=1, description="Layout scenes: images of the train part")
    test_count: int = Field(200, ge=1, description="Layout scenes: images of the test part")
    seed: int = Field(0, description="Layout scenes: which images")
    side: int = Field(224, ge=32, description="Layout scenes: height and width in pixels")

    @model_validator(mode="after")
    def _complete(self) -> DenseData:
        layout = getattr(self, "layout", "scenes")
        if layout != "scenes" and self.path is None:
            raise ValueError(f"layout {layout} needs a path")
        if layout == "folder" and (self.train is None or self.test is None):
            raise ValueError("layout folder needs train and test, each with images and labels")
        return self

    def _folder(self, root: Path, *usual: str) -> Path:
        """The data set's folder, also where `path` is the folder that it was unpacked in."""
        assert self.path is not None
        path = root / self.path.expanduser()
        if not path.is_dir():
            raise InputError(f"data path {path} is not a folder: check the path")
        return next((path / name for name in usual if (path / name).is_dir()), path)

    def _scenes(self) -> tuple[DenseScenes, DenseScenes]:
        def part(count: int, split: Split) -> DenseScenes:
            return DenseScenes(count, seed=self.seed, split=split, side=self.side, content="object")

        return part(self.count, "train"), part(self.test_count, "test")

    def _checked(self, train: P, test: P) -> tuple[P, P]:
        if self.check:
            train.check()
            test.check()
        return train, test


class MaskData(DenseData):
    """Images with a class for each pixel.

    folder: `train` and `test` folders; `classes` or `names` say what the values mean.
    ade20k: ADEChallengeData2016 as it is unpacked; 0 ("other") is not judged, 1..150 -> 0..149.
    scenes: procedural objects before a background; needs no files.
    """

    layout: Literal["folder", "ade20k", "scenes"]
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
    def _classes_given(self) -> MaskData:
        if (self.classes is None) == (self.names is None) and self.layout == "folder":
            raise ValueError("layout folder needs either classes or names")
        return self

    @model_validator(mode="after")
    def _read(self) -> Self:
        return only_read(
            self,
            folder="path train test classes names ignore zero_is_ignore",
            ade20k="path",
            scenes="count test_count seed side",
        )

    def open(self, root: Path) -> tuple[MaskedImages, MaskedImages]:
        """(train, test), with the same classes under the same numbers.

        Args:
            root: the folder that a relative `path` starts from.

        Raises:
            InputError: for missing or empty folders, masks without image, files that cannot be
                read, masks of another size than their image, values that are no class.
        """
        if self.layout == "scenes":
            return self._scenes()
        if self.layout == "ade20k":
            return self._ade20k(self._folder(root, "ADEChallengeData2016"))
        path = self._folder(root)
        left = {*self.ignore, *([0] if self.zero_is_ignore else [])}
        classes, numbers = self._meaning(root, left)
        assert self.train is not None
        assert self.test is not None
        train, test = (
            MaskFiles(
                path,
                by_stem(path / part.images, path / part.labels, "mask"),
                classes,
                numbers,
                left,
            )
            for part in (self.train, self.test)
        )
        return self._checked(train, test)

    def _ade20k(self, path: Path) -> tuple[MaskFiles, MaskFiles]:
        classes = _ade_names(path / "objectInfo150.txt")
        train, test = (
            MaskFiles(
                path,
                by_stem(path / "images" / part, path / "annotations" / part, "mask"),
                classes,
                {value: value - 1 for value in range(1, ADE_CLASSES + 1)},
                [0],
            )
            for part in ("training", "validation")
        )
        return self._checked(train, test)

    def _meaning(self, root: Path, left: set[int]) -> tuple[list[str], dict[int, int]]:
        """Names of the classes but for values in `left`, and from pixel values to their numbers."""
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


class DepthData(DenseData):
    """Images with a distance for each pixel.

    folder: `train` and `test` folders of images and depth files.
    nyuv2: as BTS ships it: `sync/SCENE/{rgb_*.jpg,sync_depth_*.png}` to train on and
        `official_splits/test/SCENE/...` to judge; where its lists of files lie in the folder (or
        are named), they say which images; metres = value / 1000.
    scenes: procedural objects in a room; needs no files.
    """

    layout: Literal["folder", "nyuv2", "scenes"]
    depth_scale: float = Field(1000.0, gt=0, description="Metres = a file's value / this")
    train_list: Path | None = Field(None, description="Layout nyuv2: list of files, inside path")
    test_list: Path | None = Field(None, description="Layout nyuv2: list of files, inside path")

    @model_validator(mode="after")
    def _read(self) -> Self:
        return only_read(
            self,
            folder="path train test depth_scale",
            nyuv2="path train_list test_list depth_scale",
            scenes="count test_count seed side",
        )

    def open(self, root: Path) -> tuple[DepthImages, DepthImages]:
        """(train, test).

        Args:
            root: the folder that a relative `path` starts from.

        Raises:
            InputError: for missing or empty folders, depths without image, files that cannot be
                read, depth maps of another size than their image.
        """
        if self.layout == "scenes":
            return self._scenes()
        path = self._folder(root)
        if self.layout == "nyuv2":
            found = [
                _nyu(path, "train", self.train_list),
                _nyu(path, "test", self.test_list),
            ]
        else:
            assert self.train is not None
            assert self.test is not None
            found = [
                by_stem(path / part.images, path / part.labels, "depth map")
                for part in (self.train, self.test)
            ]
        train, test = (DepthFiles(path, files, self.depth_scale) for files in found)
        return self._checked(train, test)


def _ade_names(table: Path) -> list[str]:
    """First word of each class's names in ADE20K's own table; without the table its numbers."""
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


def _nyu(path: Path, part: str, given: Path | None) -> list[tuple[Path, Path]]:
    folder = path / NYU_FOLDERS[part]
    table = path / (given or NYU_LISTS[part])
    if not table.is_file():
        if given:
            raise InputError(f"{table} is missing: correct {part}_list")
        return _nyu_folders(folder)
    found = []
    for line in table.read_text(encoding="utf-8").splitlines():
        image, _, rest = line.partition(" ")
        labels = rest.partition(" ")[0]
        if not labels or labels == "None":  # a line without ground truth
            continue
        both = [
            folder / name if (folder / name).is_file() else path / name
            for name in (image.lstrip("/"), labels.lstrip("/"))
        ]
        if missing := [file for file in both if not file.is_file()]:
            raise InputError(f"{missing[0]} is missing, but {table.name} lists it: unpack it again")
        found.append((both[0], both[1]))
    if not found:
        raise InputError(f"{table} lists no image with depth: unpack it again")
    return found


def _nyu_folders(folder: Path) -> list[tuple[Path, Path]]:
    def image_of(stem: str) -> str:
        scene, _, name = stem.rpartition("/")
        return f"{scene}/{name.replace('sync_depth_', 'rgb_', 1)}".lstrip("/")

    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: NYUv2 as BTS ships it has it; unpack it there")
    return by_stem(folder, folder, "depth map", image_of, "sync_depth_")
