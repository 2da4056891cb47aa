from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from openeupe import encoders
from openeupe.encoders import Encoder

from ..data.conftest import picture

ImagePool = Callable[..., Path]


def photo(number: int) -> Image.Image:
    """A picture with fine structure, unlike every other number's."""
    noise = np.random.default_rng(number).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    fine = Image.fromarray(noise).resize((128, 96), Image.Resampling.NEAREST)
    return Image.blend(picture(number, 128, 96), fine, 0.25)


def jpeg(image: Image.Image, quality: int = 90) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return stream.getvalue()


@pytest.fixture
def image_pool(tmp_path: Path) -> Path:
    """12 photos; copies of 0, 1 and 2; broken, tiny and narrow ones."""
    folder = tmp_path / "pool"
    (folder / "deep").mkdir(parents=True)
    for number in range(12):
        (folder / f"{number:02d}.jpg").write_bytes(jpeg(photo(number)))
    (folder / "deep" / "exact.jpg").write_bytes(jpeg(photo(0)))
    (folder / "again.jpg").write_bytes(jpeg(photo(1), 40))
    (folder / "mirror.jpg").write_bytes(jpeg(ImageOps.mirror(photo(2).resize((112, 84)))))
    (folder / "broken.jpg").write_bytes(jpeg(photo(3))[:700])
    (folder / "empty.png").write_bytes(b"")
    photo(4).resize((32, 24)).save(folder / "tiny.png")
    photo(5).resize((600, 70)).save(folder / "narrow.png")
    return folder


@pytest.fixture
def tars(tmp_path: Path) -> Path:
    """Two shards of photos 20 to 25."""
    folder = tmp_path / "tars"
    folder.mkdir()
    for shard in range(2):
        with tarfile.open(folder / f"{shard}.tar", "w") as archive:
            for number in range(3 * shard + 20, 3 * shard + 23):
                content = jpeg(photo(number))
                info = tarfile.TarInfo(f"{number}.jpg")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return folder


@pytest.fixture(scope="session")
def encoder() -> Encoder:
    torch.manual_seed(0)
    return encoders.create("test_resnet", pretrained=False).eval()
