"""Small images, masks and the settings that read them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from openeupe.datasets.dense import PartFolders
from openeupe.datasets.masks import MaskFolders

PART = PartFolders(images=Path("images"), labels=Path("labels"))


def save(file: Path, values: object, dtype: object = np.uint8) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, dtype=dtype)).save(file)
    return file


def photo(file: Path, size: tuple[int, int] = (6, 4)) -> Path:
    return save(file, np.full((size[1], size[0], 3), 90))


def picture(path: Path, width: int = 40, height: int = 30) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((height, width, 3), 90, np.uint8)).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images with masks of the values 0, 3, 7 and 255, and one image without a mask."""
    for name, value in (("b/2", 3), ("a", 7)):
        photo(tmp_path / f"images/{name}.jpg")
        mask = np.zeros((4, 6))
        mask[0, :2] = value, 255
        save(tmp_path / f"labels/{name}.png", mask)
    photo(tmp_path / "images/c.jpg")
    return tmp_path


def masks(path: Path, **settings: object) -> MaskFolders:
    return MaskFolders(path=path, train=PART, test=PART, **settings)  # type: ignore[arg-type]
