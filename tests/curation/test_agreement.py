from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps
from scipy import ndimage

from openeupe.curation.agreement import Agreement, agreement
from openeupe.curation.hashing import digest
from openeupe.curation.image_pool import ImagePool
from openeupe.errors import InputError

from .conftest import jpeg, photo


def scene(number: int, size: tuple[int, int] = (320, 240)) -> Image.Image:
    """Smooth shapes of all sizes, as photos have; unlike every other number's."""
    noise = np.random.default_rng(number).standard_normal((3, size[1], size[0]))
    rough = sum(k * ndimage.gaussian_filter(noise, (0, k, k)) for k in (4, 8, 16, 32))
    levels = 128 + 60 * rough / np.std(rough)
    return Image.fromarray(np.moveaxis(levels, 0, 2).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("number", range(3))
def test_copies_agree_and_others_do_not(number: int) -> None:
    image = scene(number)
    copies = {
        "compressed": Image.open(io.BytesIO(jpeg(image, 30))).convert("RGB"),
        "smaller": image.resize((170, 120)),
        "cropped": image.crop((16, 0, 320, 228)).resize((200, 150)),
        "mirrored": ImageOps.mirror(image),
        "darker": ImageEnhance.Brightness(image).enhance(0.7),
        "gray": image.convert("L").convert("RGB"),
        "turned left": image.transpose(Image.Transpose.ROTATE_90),
        "turned right": image.resize((170, 120)).transpose(Image.Transpose.ROTATE_270),
        "upside down": image.transpose(Image.Transpose.ROTATE_180),
        "turned and mirrored": image.transpose(Image.Transpose.TRANSPOSE),
    }
    for kind, copy in copies.items():
        assert agreement(image, copy) > 0.9, kind
        assert agreement(copy, image) > 0.9, kind
    for kind in ("mirrored", "turned and mirrored"):
        assert agreement(image, copies[kind], mirrored=False) < 0.9
    assert agreement(image, copies["turned left"], mirrored=False) > 0.9
    assert agreement(image, scene(number + 10)) < 0.7
    something = image.copy()  # that came into the picture
    something.paste(scene(number + 20, (100, 100)), (180, 100))
    assert agreement(image, something) < 0.9
    assert agreement(image, Image.new("RGB", (320, 240), "teal")) == 0


def scanned(folder: Path) -> tuple[ImagePool, NDArray[np.uint64]]:
    """The images of a folder, and the digests of their bytes."""
    contents = [file.read_bytes() for file in sorted(folder.iterdir())]
    return ImagePool([folder]), np.frombuffer(b"".join(map(digest, contents)), np.uint64).reshape(
        -1, 2
    )


def test_pairs_are_compared_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pool").mkdir()
    for name, content in (("a", jpeg(photo(1))), ("b", jpeg(photo(1), 50)), ("c", jpeg(photo(2)))):
        (tmp_path / "pool" / f"{name}.jpg").write_bytes(content)
    ours, work = scanned(tmp_path / "pool"), tmp_path / "work"
    compare = Agreement(ours, ours, work, True, 2)
    rows, others = np.array([0, 0]), np.array([1, 2])
    first = compare(rows, others)
    assert first[0] > 0.9
    assert first[1] < 0.8
    monkeypatch.setattr(ImagePool, "read_again", None)
    assert (Agreement(ours, ours, work, True, 1)(rows, others) == first).all()


def test_an_image_that_changed_since_it_was_scanned_is_told_and_not_remembered(
    tmp_path: Path,
) -> None:
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool" / "a.jpg").write_bytes(jpeg(photo(1)))
    (tmp_path / "pool" / "b.jpg").write_bytes(jpeg(photo(1), 50))
    ours = scanned(tmp_path / "pool")
    rows, others = np.array([0]), np.array([1])
    for instead in (b"broken", jpeg(photo(2), 50)):
        (tmp_path / "pool" / "b.jpg").write_bytes(instead)
        with pytest.raises(InputError, match=r"b\.jpg changed since it was scanned: curate again"):
            Agreement(ours, ours, tmp_path / "work", True, 1)(rows, others)
    (tmp_path / "pool" / "b.jpg").write_bytes(jpeg(photo(1), 50))
    assert Agreement(ours, ours, tmp_path / "work", True, 1)(rows, others)[0] > 0.9
