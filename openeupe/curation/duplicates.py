"""Choose one image of each group of copies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
Agree = Callable[[Rows, Rows], NDArray[np.float32]]
_BATCH = 2048  # pairs compared at once


class Pairs(NamedTuple):
    """Pairs of rows that may be copies: `[P]` each."""

    one: Rows
    two: Rows
    bits: NDArray[np.int64]  # by which the hashes differ
    cosine: NDArray[np.float32]  # of the embeddings; nan: none

    def where(self, mask: NDArray[np.bool_]) -> Pairs:
        """Those of the mask `[P]`."""
        return Pairs(self.one[mask], self.two[mask], self.bits[mask], self.cosine[mask])


class Copies(NamedTuple):
    """Rows to drop, with the evidence: `[C]` each."""

    rows: Rows
    of: Rows  # what each is a copy of
    bits: NDArray[np.int64]
    cosine: NDArray[np.float32]
    agreement: NDArray[np.float32]  # nan: not compared


def joined(parts: Sequence[Pairs]) -> Pairs:
    """All pairs of the parts."""
    if not parts:
        none = np.empty(0, np.int64)
        return Pairs(none, none, none, np.empty(0, np.float32))
    return Pairs(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


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


def compared(pairs: Pairs, agree: Agree | None) -> NDArray[np.float32]:
    """Agreement of all pairs, `[P]`, computed in batches; nan without `agree`."""
    agreements = np.full(len(pairs.one), np.nan, np.float32)
    if agree is not None:
        for start in range(0, len(agreements), _BATCH):
            some = slice(start, start + _BATCH)
            agreements[some] = agree(pairs.one[some], pairs.two[some])
    return agreements


def near_copies(
    pairs: Pairs, rank: NDArray[np.int64], agree: Agree | None = None, least: float = 0.0
) -> Copies:
    """Near copies to drop, each with the row it copies.

    In order of rank, each remaining row drops all near rows of lower rank. So every dropped row is
    near one that remains (joining connected rows would drop a whole film, since each frame is near
    the next).

    Args:
        pairs: may come twice.
        rank: of each row; smaller is better.
        agree: compares the images of pairs that still count; those below `least` are no copies.
    """
    first = rank[pairs.one] < rank[pairs.two]
    better, worse = np.where(first, pairs.one, pairs.two), np.where(first, pairs.two, pairs.one)
    order = np.lexsort((pairs.bits, rank[worse], rank[better]))
    again = (np.diff(better[order], prepend=-1) == 0) & (np.diff(worse[order], prepend=-1) == 0)
    order = order[~again]
    gone = np.zeros(len(rank), bool)
    places: list[int] = []
    agreements: list[float] = []
    for start in range(0, len(order), _BATCH):
        some = order[start : start + _BATCH]
        some = some[~gone[better[some]] & ~gone[worse[some]]]
        agreed = np.full(len(some), np.nan, np.float32)
        if agree is not None and len(some):
            agreed = agree(better[some], worse[some])
        for place, agreement in zip(some.tolist(), agreed.tolist(), strict=True):
            if agreement < least or gone[better[place]] or gone[worse[place]]:
                continue
            gone[worse[place]] = True
            places.append(place)
            agreements.append(agreement)
    at = np.array(places, np.int64)
    columns = (worse[at], better[at], pairs.bits[at], pairs.cosine[at])
    return Copies(*columns, np.array(agreements, np.float32))


def ranks(width: NDArray[np.int32], height: NDArray[np.int32], size: NDArray[np.int64]) -> Rows:
    """Which copy should stay: the one with most pixels, then most bytes, then the first."""
    area = width.astype(np.int64) * height
    order = np.lexsort((np.arange(len(area)), -size, -area))
    rank = np.empty(len(area), np.int64)
    rank[order] = np.arange(len(area))
    return rank
