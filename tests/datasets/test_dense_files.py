"""Files of masks: what is read, and what is refused in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from openeupe.datasets.masks import MaskFolders
from openeupe.errors import InputError

from .conftest import PART, masks, photo, save


def test_palettes_and_16_bits_are_numbers(folder: Path) -> None:
    indexed = Image.open(folder / "labels/a.png").convert("L")
    indexed.putpalette([5] * 768)
    indexed.save(folder / "labels/a.png")
    save(folder / "labels/b/2.png", np.full((4, 6), 700), np.uint16)
    (folder / "names.yaml").write_text("{700: far, 7: cat, 0: ground}")
    train, _ = masks(folder, names="names.yaml").open(folder)
    assert train.mask(0)[0].tolist() == [1, 255, 0, 0, 0, 0]
    assert (train.mask(1) == 2).all()


def test_masks_of_one_bit_are_numbers_and_fractions_are_refused(folder: Path) -> None:
    half = np.arange(24).reshape(4, 6) % 2 > 0
    save(folder / "labels/a.png", half, bool)
    save(folder / "labels/b/2.png", half, bool)
    train, _ = masks(folder, classes=2).open(folder)
    np.testing.assert_array_equal(train.mask(0), half)
    (folder / "labels/a.png").unlink()
    save(folder / "labels/a.tif", np.full((4, 6), 0.5), np.float32)
    with pytest.raises(InputError, match=r"a.tif is no mask: its values must be whole numbers"):
        masks(folder, classes=2).open(folder)


def test_bad_data_is_one_clear_line(folder: Path) -> None:
    good = masks(folder, classes=8, ignore=(3,))

    def complains(data: MaskFolders, about: str) -> None:
        with pytest.raises(InputError, match=about) as caught:
            data.open(folder)
        assert "\n" not in str(caught.value)

    complains(good.model_copy(update={"path": Path("no")}), "no is not a folder")
    complains(masks(folder, classes=7, ignore=(3,)), r"a.png has the value 7, which is no class")
    complains(masks(folder, names="a.yaml"), "names .*a.yaml is not a YAML mapping")
    part = PART.model_copy(update={"labels": Path("masks")})
    complains(
        MaskFolders(path=folder, train=PART, test=part, classes=9),
        "masks is not a folder: it should hold masks",
    )
    (folder / "masks").mkdir()
    complains(
        MaskFolders(path=folder, train=PART, test=part, classes=9),
        "masks holds no masks",
    )
    save(folder / "labels/d.png", np.zeros((4, 6)))
    complains(good, r"d.png has no image d\.\*")
    photo(folder / "images/d.jpg", (4, 6))
    complains(good, r"labels/d.png is 6 x 4, its image 4 x 6")
    photo(folder / "labels/d.png")
    complains(good, "d.png is a colour picture")
    (folder / "labels/d.png").write_bytes(b"\x89PNG")
    complains(good, "d.png cannot be read as a mask")
    whole = (folder / "labels/a.png").read_bytes()
    (folder / "labels/d.png").write_bytes(whole[: whole.index(b"IDAT") + 6])
    complains(good, "d.png cannot be read as a mask")
    (folder / "labels/d.png").unlink()
    (folder / "images/a.jpg").write_text("no image")
    complains(good, "a.jpg cannot be read as an image: replace the file")
    good.model_copy(update={"check": False}).open(folder)
    photo(folder / "images/a.png")
    complains(good, r"a.png and a.jpg have one name")


def test_an_images_turn_counts_for_its_size(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (4, 6)).save(folder / "images/a.jpg", exif=exif)
    train, _ = masks(folder, classes=8).open(folder)
    assert train.read(0).size == (6, 4)
