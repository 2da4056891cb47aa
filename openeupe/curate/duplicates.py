"""Of images that are copies of one another, one stays."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
Pair = tuple[int, int, int, float]  # row, row, bits by which the hashes differ, cosine


def exact_copies(digests: NDArray[np.uint64], rows: Rows) -> tuple[Rows, Rows]:
    """Rows whose bytes equal those of an earlier row, and that row.

    Args:
        digests: `[N, 2]` uint64 of all images.
        rows: which of them to compare, ascending.
    """
    order = np.lexsort((rows, digests[rows, 0], digests[rows, 1]))
    ordered = rows[order]
    same = (digests[ordered[1:]] == digests[ordered[:-1]]).all(axis=1)
    starts = np.flatnonzero(np.concatenate([[True], ~same])) if len(rows) else np.empty(0, int)
    first = np.repeat(ordered[starts], np.diff(np.append(starts, len(ordered))))
    copies = ordered != first
    return ordered[copies], first[copies]


def near_copies(
    pairs: Iterable[Pair], rank: NDArray[np.int64]
) -> dict[int, tuple[int, int, float]]:
    """Which rows to drop as near copies, which row each is a copy of, bits and cosine.

    Taken by rank: a row that is still there drops all of lower rank that are near it. So every
    dropped one is near the very one that is kept (joining all that hang together would drop a
    whole film because each frame is like the next).

    Args:
        pairs: may come twice.
        rank: of each row; smaller is better.
    """
    neighbours: dict[int, list[tuple[int, int, float]]] = defaultdict(list)
    for one, two, bits, cosine in pairs:
        better, worse = (one, two) if rank[one] < rank[two] else (two, one)
        neighbours[better].append((worse, bits, cosine))
    dropped: dict[int, tuple[int, int, float]] = {}
    for row in sorted(neighbours, key=lambda row: int(rank[row])):
        if row not in dropped:
            for worse, bits, cosine in neighbours[row]:
                dropped.setdefault(worse, (row, bits, cosine))
    return dropped


def ranks(width: NDArray[np.int32], height: NDArray[np.int32], size: NDArray[np.int64]) -> Rows:
    """Which copy should stay: the one with most pixels, then most bytes, then the first."""
    area = width.astype(np.int64) * height
    order = np.lexsort((np.arange(len(area)), -size, -area))
    rank = np.empty(len(area), np.int64)
    rank[order] = np.arange(len(area))
    return rank
