"""Digests of bytes and perceptual hashes, to find copies.

The perceptual hash is the usual one of low DCT frequencies against their median (Zauner 2010,
"Implementation and benchmarking of perceptual image hash functions"): scaling, recompression and
brightness change few bits.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from openeupe.curation.libraries import import_faiss

_RESOLUTION = 32  # pixels that the frequencies are taken of
_LOW = 8  # frequencies each way
FLAT = 2.0  # standard deviation of gray values below which there is nothing to compare
_BANDS = 4
MOST_BITS = 15  # that hashes found near may differ by

_FREQUENCIES = np.cos(
    np.pi * np.arange(_LOW)[:, None] * (2 * np.arange(_RESOLUTION)[None] + 1) / (2 * _RESOLUTION)
).astype(np.float32)
_SIGNS = np.array([1, -1] * (_LOW // 2), dtype=np.float32)  # of frequencies seen in a mirror
_POWERS = (np.uint64(1) << np.arange(64, dtype=np.uint64)).astype(np.uint64)


class Hashes(NamedTuple):
    """Of the image, mirrored, upside down, and both (turned by 180 degrees); 0: it is flat."""

    plain: int
    mirrored: int
    flipped: int
    turned: int


def digest(encoded: bytes) -> bytes:
    """16 bytes that differ for files that differ (BLAKE2b)."""
    return hashlib.blake2b(encoded, digest_size=16).digest()


def perceptual_hashes(image: Image.Image) -> Hashes:
    """Hashes of an RGB or gray image. Flat ones (a single colour) have none, which is written 0.

    Those of the image turned by 90 degrees follow from them: see `faces`.
    """
    small = image.convert("L").resize(
        (_RESOLUTION, _RESOLUTION), Image.Resampling.BOX, reducing_gap=2.0
    )
    gray = np.asarray(small, dtype=np.float32)
    if gray.std() < FLAT:
        return Hashes(0, 0, 0, 0)
    low = _FREQUENCIES @ gray @ _FREQUENCIES.T
    flipped = low * _SIGNS[:, None]
    return Hashes(_bits(low), _bits(low * _SIGNS), _bits(flipped), _bits(flipped * _SIGNS))


def faces(
    plain: NDArray[np.uint64],
    mirrored: NDArray[np.uint64],
    flipped: NDArray[np.uint64],
    turned: NDArray[np.uint64],
    mirrors: bool,
) -> list[NDArray[np.uint64]]:
    """Hashes of images at 0, 90, 180 and 270 degrees: `[N]` each.

    Args:
        plain, mirrored, flipped, turned: fields of `Hashes`, `[N]` each.
        mirrors: also of the mirrored images, which makes eight.
    """
    found = [plain, turned, _transposed(mirrored), _transposed(flipped)]
    if mirrors:
        found += [mirrored, flipped, _transposed(plain), _transposed(turned)]
    return found


def _transposed(hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Hashes of the images mirrored at their diagonal: rows of signs become columns."""
    bits = np.unpackbits(_bytes(hashes), axis=1, bitorder="little").reshape(-1, _LOW, _LOW)
    moved = bits.transpose(0, 2, 1).reshape(-1, _LOW * _LOW)
    return np.packbits(moved, axis=1, bitorder="little").view(np.uint64).ravel()


def _bits(low: NDArray[np.floating]) -> int:
    changing = low.ravel()[1:]  # without the mean, whose bit would be always set
    middle = len(changing) // 2  # of an odd number: the median, faster than np.median
    median = np.partition(changing, middle)[middle]
    return int(_POWERS[1:][changing > median].sum(dtype=np.uint64))


class HashIndex:
    """Finds hashes near given ones without comparing all with all (faiss's multi-index hashing).

    Four bands of 16 bits: hashes that are near agree in some band up to `distance // 4` bits, so
    only those are looked at. Takes some 50 bytes a hash.

    Args:
        hashes: uint64 `[N]`.
        distance: bits, 0 to `MOST_BITS`; each 4 more cost about eight times as much.
    """

    def __init__(self, hashes: NDArray[np.uint64], distance: int) -> None:
        self._distance = distance
        self._index = import_faiss().IndexBinaryMultiHash(64, _BANDS, 64 // _BANDS)
        self._index.nflip = distance // _BANDS
        self._index.add(_bytes(hashes))

    def near(
        self, hashes: NDArray[np.uint64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """All pairs: place in `hashes`, place in the index, bits; `[P]` each."""
        limits, bits, found = self._index.range_search(_bytes(hashes), self._distance + 1)
        asked = np.repeat(np.arange(len(hashes)), np.diff(limits.astype(np.int64)))
        return asked, found.astype(np.int64), bits.astype(np.int64)


def _bytes(hashes: NDArray[np.uint64]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(hashes).view(np.uint8).reshape(-1, 8)
