from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from openeupe.curation.hashing import MOST_BITS, HashIndex, faces, perceptual_hashes

from ..data.conftest import picture


def _bits(one: int, two: int) -> int:
    return (one ^ two).bit_count()


def test_copies_are_near_and_others_far() -> None:
    image = picture(0, 200, 160)
    hashes = perceptual_hashes(image)
    stream = io.BytesIO()
    image.resize((120, 96)).save(stream, "JPEG", quality=40)
    copy = perceptual_hashes(Image.open(stream).convert("RGB"))
    assert _bits(hashes.plain, copy.plain) <= 6
    others = [perceptual_hashes(picture(number, 200, 160)).plain for number in range(1, 60)]
    assert min(_bits(hashes.plain, other) for other in others) > 12


def test_the_mirrored_hash_is_that_of_the_mirrored_image() -> None:
    image = picture(3, 128, 96)
    hashes, mirrored = perceptual_hashes(image), perceptual_hashes(ImageOps.mirror(image))
    assert _bits(hashes.mirrored, mirrored.plain) <= 2
    assert _bits(hashes.plain, mirrored.mirrored) <= 2
    assert _bits(hashes.plain, mirrored.plain) > 12


@pytest.mark.parametrize("mirrors", [False, True])
def test_faces_are_the_hashes_of_the_turned_images(mirrors: bool) -> None:
    image = picture(3, 128, 96)
    turns = [
        None,
        Image.Transpose.ROTATE_90,
        Image.Transpose.ROTATE_180,
        Image.Transpose.ROTATE_270,
    ]
    turned = [image if turn is None else image.transpose(turn) for turn in turns]
    if mirrors:
        turned += [ImageOps.mirror(one) for one in turned]
    own = [np.array([value], np.uint64) for value in perceptual_hashes(image)]
    found = [int(face[0]) for face in faces(*own, mirrors)]
    assert len(found) == len(turned)
    for one in turned:
        assert min(_bits(perceptual_hashes(one).plain, face) for face in found) <= 2
    if not mirrors:
        assert min(_bits(perceptual_hashes(ImageOps.mirror(image)).plain, f) for f in found) > 12


def test_flat_images_have_no_hash() -> None:
    assert perceptual_hashes(Image.new("RGB", (90, 90), "teal")) == (0, 0, 0, 0)


@pytest.mark.parametrize("distance", [0, 3, 7, 12, MOST_BITS])
def test_bands_find_exactly_the_near_ones(distance: int) -> None:
    generator = np.random.default_rng(distance)
    left = generator.integers(0, 2**64, 400, dtype=np.uint64)
    right = left.copy()
    for row in range(400):  # each a copy with up to 16 bits turned
        for bit in generator.choice(64, generator.integers(0, 17), replace=False):
            right[row] ^= np.uint64(1) << np.uint64(bit)
    one, two, bits = HashIndex(right, distance).near(left)
    apart = np.bitwise_count(left[:, None] ^ right[None])
    expected = set(zip(*map(np.ndarray.tolist, np.nonzero(apart <= distance)), strict=True))
    assert set(zip(one.tolist(), two.tolist(), strict=True)) == expected
    assert len(one) == len(expected)
    assert (bits == apart[one, two]).all()
