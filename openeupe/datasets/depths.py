"""Data sets with depths: plain folders, NYUv2, procedural scenes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from openeupe.config import Config
from openeupe.datasets.dense import DenseScenes, PartFolders, both_checked, unpacked
from openeupe.datasets.dense_files import DepthFiles, by_stem
from openeupe.errors import InputError

NYU_LISTS = {
    "train": "nyudepthv2_train_files_with_gt.txt",
    "test": "nyudepthv2_test_files_with_gt.txt",
}
NYU_FOLDERS = {"train": "sync", "test": "official_splits/test"}


class DepthFolders(Config):
    """Folders of images and depth files."""

    layout: Literal["folder"] = "folder"
    path: Path = Field(description="The data set's folder")
    train: PartFolders
    test: PartFolders
    check: bool = Field(True, description="Read every image's header and every depth file first")
    depth_scale: float = Field(1000.0, gt=0, description="Metres = a file's value / this")

    def open(self, root: Path) -> tuple[DepthFiles, DepthFiles]:
        """(train, test).

        Args:
            root: the folder that a relative `path` starts from.

        Raises:
            InputError: for missing or empty folders, depths without image, files that cannot be
                read, depth maps of another size than their image.
        """
        path = unpacked(root / self.path.expanduser())
        train, test = (
            DepthFiles(path, part.files(path, "depth map"), self.depth_scale)
            for part in (self.train, self.test)
        )
        return both_checked(train, test, self.check)


class NYUv2(Config):
    """NYUv2 as BTS ships it.

    `sync/SCENE/{rgb_*.jpg,sync_depth_*.png}` to train on and `official_splits/test/SCENE/...` to
    test on; where its lists of files are in the folder (or are named), they name the images.
    """

    layout: Literal["nyuv2"] = "nyuv2"
    path: Path = Field(description="The data set's folder")
    check: bool = Field(True, description="Read every image's header and every depth file first")
    depth_scale: float = Field(1000.0, gt=0, description="Metres = a file's value / this")
    train_list: Path | None = Field(None, description="List of files, inside path")
    test_list: Path | None = Field(None, description="List of files, inside path")

    def open(self, root: Path) -> tuple[DepthFiles, DepthFiles]:
        """(train, test) as `DepthFolders.open` has them; a file that is listed must be there."""
        path = unpacked(root / self.path.expanduser())
        found = _nyu(path, "train", self.train_list), _nyu(path, "test", self.test_list)
        train, test = (DepthFiles(path, files, self.depth_scale) for files in found)
        return both_checked(train, test, self.check)


DepthData = Annotated[DepthFolders | NYUv2 | DenseScenes, Field(discriminator="layout")]


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
