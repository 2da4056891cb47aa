"""Which images are dropped, in what order of reasons, and which of the kept each is a copy of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from openeupe.curate.config import CurateConfig
from openeupe.curate.duplicates import Pair, Rows, exact_copies, near_copies, ranks
from openeupe.curate.hashing import near_hashes
from openeupe.curate.scan import Scanned

# In the order in which they are looked for; what an image is dropped for first, counts.
REASONS = (
    "kept",
    "unreadable",
    "small",
    "narrow",
    "leak",
    "copy",
    "near copy",
    "unlike",
    "balance",
)
KEPT, UNREADABLE, SMALL, NARROW, LEAK, COPY, NEAR_COPY, UNLIKE, BALANCE = range(len(REASONS))
NONE = 255  # bits of what was not compared by hash


class Decisions:
    """One entry for each image; filled step by step.

    reason: uint8, of `REASONS`. of: int64, the row that a copy is a copy of, or -1.
    bits: uint8, by which the hashes of the two differ, or `NONE`.
    cosine: float32, of their embeddings, or nan. leaks: row -> row of the evaluation images.
    """

    def __init__(self, scanned: Scanned, config: CurateConfig, hash_distance: int) -> None:
        count = len(scanned)
        self.scanned, self.config, self.hash_distance = scanned, config, hash_distance
        self.reason = np.zeros(count, np.uint8)
        self.of = np.full(count, -1, np.int64)
        self.bits = np.full(count, NONE, np.uint8)
        self.cosine = np.full(count, np.nan, np.float32)
        self.leaks: dict[int, int] = {}
        self._rank = ranks(scanned.width, scanned.height, scanned.size_bytes)

    @property
    def left(self) -> Rows:
        """Rows that nothing was held against yet, ascending."""
        return np.flatnonzero(self.reason == KEPT)

    def by_shape(self) -> None:
        """Drop what cannot be read, is too small, or too narrow."""
        width, height = self.scanned.width, self.scanned.height
        short, long = np.minimum(width, height), np.maximum(width, height)
        self.reason[long > self.config.max_aspect * short] = NARROW
        self.reason[short < self.config.min_side] = SMALL
        self.reason[short == 0] = UNREADABLE

    def by_bytes(self, against: Scanned | None) -> None:
        """Drop leaks and all but the first of files with the same bytes."""
        if against is not None:
            ours, theirs = (_keys(s.digest) for s in (self.scanned, against))
            order = np.argsort(theirs, kind="stable")
            left = self.left
            found = np.minimum(np.searchsorted(theirs[order], ours[left]), len(theirs) - 1)
            same = theirs[order[found]] == ours[left]
            both = zip(left[same], order[found[same]], strict=True)
            self.drop_leaks((row, other, NONE, np.nan) for row, other in both)
        copies, first = exact_copies(self.scanned.digest, self.left)
        self.reason[copies], self.of[copies] = COPY, first

    def by_hash(self, against: Scanned | None) -> None:
        """Drop leaks and near copies by perceptual hashes alone."""
        if against is not None:
            self.drop_leaks(self._hash_pairs(against))
        self.drop_copies(self._hash_pairs(None))

    def drop_copies(self, pairs: Iterable[Pair]) -> None:
        """Drop near copies: of each pair of rows that is still there, the one of lower rank."""
        for row, (kept, bits, cosine) in near_copies(pairs, self._rank).items():
            self.reason[row], self.of[row] = NEAR_COPY, kept
            self.bits[row], self.cosine[row] = bits, cosine

    def drop_leaks(self, pairs: Iterable[Pair]) -> None:
        """Drop rows that are near a row of the evaluation images; the first of these counts."""
        for row, other, bits, cosine in pairs:
            if self.reason[row] == KEPT:
                self.reason[row], self.leaks[int(row)] = LEAK, int(other)
                self.bits[row], self.cosine[row] = bits, cosine

    def hash_bits(self, rows: Rows, others: Rows, against: Scanned | None = None) -> Rows:
        """By how many bits the hashes differ, mirrored if that is nearer; `NONE` without a hash."""
        ours, theirs = self.scanned.hash[rows], (against or self.scanned).hash[others]
        bits = np.bitwise_count(ours ^ theirs)
        if self.config.mirrored:
            bits = np.minimum(bits, np.bitwise_count(self.scanned.mirrored[rows] ^ theirs))
        return np.where((ours == 0) | (theirs == 0), NONE, bits).astype(np.int64)

    def settle(self) -> None:
        """Copies of copies become copies of what was kept; copies of a leak are leaks."""
        while True:
            further = np.where(self.of >= 0, self.of[self.of], -1)
            if not (further >= 0).any():
                break
            self.of = np.where(further >= 0, further, self.of)
        copies = np.flatnonzero(self.of >= 0)
        for row in copies[self.reason[self.of[copies]] == LEAK]:
            kept = self.of[row]
            self.reason[row], self.of[row] = LEAK, -1
            self.leaks[int(row)] = self.leaks[int(kept)]
            self.bits[row], self.cosine[row] = self.bits[kept], self.cosine[kept]

    def _hash_pairs(self, against: Scanned | None) -> Iterator[Pair]:
        """Rows and rows (of `against`, or of ourselves) whose hashes are near.

        Equal hashes are looked for once: many drawings may share one.
        """
        left = self.left[self.scanned.hash[self.left] != 0]
        left = left[np.argsort(self._rank[left], kind="stable")]
        values, first, group = np.unique(
            self.scanned.hash[left], return_index=True, return_inverse=True
        )
        best = left[first]  # of each value: the one of best rank
        members = _members(group, left)
        if against is None:
            for same, one in zip(members, best, strict=True):
                yield from ((int(one), int(row), 0, np.nan) for row in same if row != one)
            others, theirs = best, values
        else:
            seen = np.flatnonzero(against.hash != 0)
            theirs, where = np.unique(against.hash[seen], return_index=True)
            others = seen[where]
        faces = [values]
        if self.config.mirrored:
            faces.append(self.scanned.mirrored[best])
        for face in faces:
            for one, two, bits in zip(*near_hashes(face, theirs, self.hash_distance), strict=True):
                if against is not None:
                    yield from ((int(r), int(others[two]), int(bits), np.nan) for r in members[one])
                elif one != two:
                    yield int(best[one]), int(best[two]), int(bits), np.nan


def _keys(digests: NDArray[np.uint64]) -> NDArray[np.void]:
    """Each digest as one value that can be sorted."""
    return np.ascontiguousarray(digests).view("V16").ravel()


def _members(group: NDArray[np.int64], rows: Rows) -> list[Rows]:
    order = np.argsort(group, kind="stable")
    return np.split(rows[order], np.flatnonzero(np.diff(group[order])) + 1) if len(rows) else []
