"""What tells copies of an image: bytes, and 64 bits of how it looks.

The perceptual hash is the usual one of low DCT frequencies against their median (Zauner 2010,
"Implementation and benchmarking of perceptual image hash functions"): scaling, recompression and
brightness leave most signs as they are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_SIDE = 32  # pixels that the frequencies are taken of
_LOW = 8  # frequencies each way
_FLAT = 2.0  # standard deviation of gray values below which there is nothing to compare
_BANDS, _BITS = 4, 16
MOST_BITS = 15  # that hashes found near may differ by
_CHUNK = 1 << 22  # candidates compared at once

_FREQUENCIES = np.cos(
    np.pi * np.arange(_LOW)[:, None] * (2 * np.arange(_SIDE)[None] + 1) / (2 * _SIDE)
).astype(np.float32)
_MIRROR = np.array([1, -1] * (_LOW // 2), dtype=np.float32)  # of each horizontal frequency
_POWERS = (np.uint64(1) << np.arange(64, dtype=np.uint64)).astype(np.uint64)


class Hashes(NamedTuple):
    """Of the image, and of the same seen in a mirror; 0 where the image is flat."""

    plain: int
    mirrored: int


def digest(encoded: bytes) -> bytes:
    """16 bytes that differ for files that differ (BLAKE2b)."""
    return hashlib.blake2b(encoded, digest_size=16).digest()


def perceptual_hashes(image: Image.Image) -> Hashes:
    """Hashes of an RGB image; flat ones (a single colour) have none, which is written 0."""
    small = image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX, reducing_gap=2.0)
    gray = np.asarray(small, dtype=np.float32)
    if gray.std() < _FLAT:
        return Hashes(0, 0)
    low = _FREQUENCIES @ gray @ _FREQUENCIES.T
    return Hashes(_bits(low), _bits(low * _MIRROR))


def _bits(low: NDArray[np.floating]) -> int:
    changing = low.ravel()[1:]  # without the mean, whose bit would be always set
    return int(_POWERS[1:][changing > np.median(changing)].sum(dtype=np.uint64))


class Pairs(NamedTuple):
    """Which of the left are near which of the right, and their distance: `[P]` each."""

    left: NDArray[np.int64]
    right: NDArray[np.int64]
    distance: NDArray[np.int64]


def near_hashes(left: NDArray[np.uint64], right: NDArray[np.uint64], distance: int) -> Pairs:
    """All pairs of hashes at most `distance` bits apart, without comparing all with all.

    Four bands of 16 bits: hashes that near agree in some band up to `distance // 4` bits, so only
    those are looked at.

    Args:
        left, right: uint64 `[N]`, `[M]`, each without repetitions (or pairs multiply).
        distance: bits, 0 to `MOST_BITS`; each 4 more cost about eight times as much.
    """
    found = [np.empty((2, 0), dtype=np.int64)]
    for one, two in _candidates(left, right, distance // _BANDS):
        near = np.bitwise_count(left[one] ^ right[two]) <= distance
        found.append(np.stack([one[near], two[near]]))
    one, two = np.unique(np.concatenate(found, axis=1), axis=1)  # several bands may find a pair
    return Pairs(one, two, np.bitwise_count(left[one] ^ right[two]).astype(np.int64))


def _candidates(
    left: NDArray[np.uint64], right: NDArray[np.uint64], radius: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Rows that agree in some band up to `radius` bits, some millions at a time."""
    changes = [
        sum(1 << bit for bit in bits)
        for count in range(radius + 1)
        for bits in combinations(range(_BITS), count)
    ]
    for band in range(_BANDS):
        shift, mask = np.uint64(band * _BITS), np.uint64((1 << _BITS) - 1)
        ours = ((left >> shift) & mask).astype(np.int64)
        theirs = ((right >> shift) & mask).astype(np.int64)
        order = np.argsort(theirs, kind="stable")
        starts = np.searchsorted(theirs[order], np.arange((1 << _BITS) + 1))
        for change in changes:
            first = starts[ours ^ change]
            counts = starts[(ours ^ change) + 1] - first
            ends = np.cumsum(counts)
            done = 0
            while done < len(left):
                # As many left rows as fit a chunk, but one at least.
                before = ends[done - 1] if done else 0
                stop = max(int(np.searchsorted(ends, before + _CHUNK, "right")), done + 1)
                some = counts[done:stop]
                one = np.repeat(np.arange(done, stop), some)
                inside = np.arange(len(one)) - np.repeat(np.cumsum(some) - some, some)
                yield one, order[np.repeat(first[done:stop], some) + inside]
                done = stop
