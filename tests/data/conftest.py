from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Maker = Callable[..., Path]


def picture(number: int, width: int = 48, height: int = 40) -> Image.Image:
    """A smooth picture that is unlike every other number's."""
    generator = np.random.default_rng(number)
    coarse = generator.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture
def make_folder(tmp_path: Path) -> Maker:
    def make(count: int, name: str = "images", start: int = 0) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for number in range(start, start + count):
            picture(number).save(folder / f"{number:04d}.png")
        return folder

    return make
