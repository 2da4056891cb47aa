"""Common parts of data sets with masks and with depths."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeVar

from pydantic import Field

from openeupe.config import Config
from openeupe.datasets.dense_files import Pairs, by_stem
from openeupe.datasets.scenes.dataset import Scenes, Split
from openeupe.errors import InputError

P = TypeVar("P", bound=Pairs)


class PartFolders(Config):
    """One part of a plain folder layout, inside the data set's path.

    labels: files with the names of their images; images without one are left out.
    """

    images: Path
    labels: Path

    def files(self, path: Path, what: str) -> list[tuple[Path, Path]]:
        """(image, labels) of each sample in `path`; what: name of the labels in messages."""
        return by_stem(path / self.images, path / self.labels, what)


class MaskedScenes(Scenes):
    """Scenes of one main object as images with masks and depths: `classes` are the masks'."""

    def __init__(self, count: int, *, seed: int, split: Split, resolution: int) -> None:
        super().__init__(count, seed=seed, split=split, resolution=resolution, content="object")
        self.classes = self.mask_classes


class DenseScenes(Config):
    """Procedural objects in a room, with masks and depths; needs no files."""

    layout: Literal["scenes"] = "scenes"
    count: int = Field(400, ge=1, description="Images of the train part")
    test_count: int = Field(200, ge=1, description="Images of the test part")
    seed: int = Field(0, description="Which images")
    resolution: int = Field(224, ge=32, description="Height and width in pixels")

    def open(self, root: Path) -> tuple[MaskedScenes, MaskedScenes]:
        """(train, test); nothing is read from `root`."""
        return (
            MaskedScenes(self.count, seed=self.seed, split="train", resolution=self.resolution),
            MaskedScenes(self.test_count, seed=self.seed, split="test", resolution=self.resolution),
        )


def unpacked(path: Path, *usual: str) -> Path:
    """The data set's folder. `path` may also be the folder that it was unpacked in.

    usual: names that the data set's own folder has.
    """
    if not path.is_dir():
        raise InputError(f"data path {path} is not a folder: check the path")
    return next((path / name for name in usual if (path / name).is_dir()), path)


def both_checked(train: P, test: P, check: bool) -> tuple[P, P]:
    """The two parts, each file of which was read if `check`."""
    for part in (train, test) if check else ():
        part.check()
    return train, test
