"""Decisions about images: reasons for dropping, and originals of copies."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from openeupe.curation.config import CurateConfig
from openeupe.curation.duplicates import (
    Agree,
    Pairs,
    Rows,
    compared,
    exact_copies,
    near_copies,
    ranks,
)
from openeupe.curation.hashing import HashIndex
from openeupe.curation.scan import Scanned

# In the order of the checks; the first reason counts.
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
_BLOCK = 4096  # hashes looked for at once,
_PAIRS = 1 << 20  # while they find about so many at most


class Decisions:
    """Decisions per image, filled step by step.

    reason: uint8, of `REASONS`. of: int64, the row that a copy is a copy of, or -1.
    bits: uint8, by which the hashes of the two differ, or `NONE`.
    cosine: float32, of their embeddings, or nan. agreement: float32, of their edges, or nan.
    leaks: row -> row of the evaluation images.

    Args:
        hash_distance: bits by which hashes of copies may differ where vectors are near too.
        alone: bits by which they may differ whatever the vectors; at most `MOST_BITS`.
    """

    def __init__(
        self, scanned: Scanned, config: CurateConfig, hash_distance: int, alone: int
    ) -> None:
        count = len(scanned)
        self.scanned, self.config = scanned, config
        self.hash_distance, self.alone = hash_distance, alone
        self.reason = np.zeros(count, np.uint8)
        self.of = np.full(count, -1, np.int64)
        self.bits = np.full(count, NONE, np.uint8)
        self.cosine = np.full(count, np.nan, np.float32)
        self.agreement = np.full(count, np.nan, np.float32)
        self.leaks: dict[int, int] = {}
        self._rank = ranks(scanned.width, scanned.height, scanned.size_bytes)

    @property
    def left(self) -> Rows:
        """Rows that are not dropped, ascending."""
        return np.flatnonzero(self.reason == KEPT)

    def by_shape(self) -> None:
        """Drop images that are unreadable, too small or too narrow."""
        width, height = self.scanned.width, self.scanned.height
        short, long = np.minimum(width, height), np.maximum(width, height)
        self.reason[long > self.config.max_aspect * short] = NARROW
        self.reason[short < self.config.min_resolution] = SMALL
        self.reason[short == 0] = UNREADABLE

    def by_bytes(self, against: Scanned | None) -> None:
        """Drop leaks and repeated files, compared by their bytes."""
        if against is not None:
            ours, theirs = (_keys(s.digest) for s in (self.scanned, against))
            order = np.argsort(theirs, kind="stable")
            left = self.left
            found = np.minimum(np.searchsorted(theirs[order], ours[left]), len(theirs) - 1)
            same = theirs[order[found]] == ours[left]
            rows, others = left[same], order[found[same]]
            blank = np.full(len(rows), NONE), np.full(len(rows), np.nan, np.float32)
            self.drop_leaks(Pairs(rows, others, *blank))
        copies, first = exact_copies(self.scanned.digest, self.left)
        self.reason[copies], self.of[copies] = COPY, first

    def leaks_by_hash(self, against: Scanned, agree: Agree | None) -> None:
        """Drop leaks that perceptual hashes find without an encoder, block by block."""
        others = np.flatnonzero(against.hash != 0)
        for pairs in self._near(self._hashed(), against.hash, others):
            self.drop_leaks(pairs, agree)

    def copies_by_hash(self, agree: Agree | None) -> None:
        """Drop near copies by perceptual hash alone, block by block."""
        for pairs in self.near_by_hash():
            self.drop_copies(pairs, agree)

    def near_by_hash(self) -> Iterator[Pairs]:
        """Candidate pairs of near copies by hash alone, the better image first."""
        rows = self._hashed()
        rows = rows[np.argsort(self._rank[rows], kind="stable")]  # best first
        for pairs in self._near(rows, self.scanned.hash, rows):
            yield pairs.where(self._rank[pairs.one] < self._rank[pairs.two])

    def drop_copies(self, pairs: Pairs, agree: Agree | None) -> None:
        """Drop near copies: of each pair of rows that is still there, the one of lower rank."""
        both = (self.reason[pairs.one] == KEPT) & (self.reason[pairs.two] == KEPT)
        found = near_copies(pairs.where(both), self._rank, agree, self.config.agreement)
        self.reason[found.rows], self.of[found.rows] = NEAR_COPY, found.of
        self.bits[found.rows], self.cosine[found.rows] = found.bits, found.cosine
        self.agreement[found.rows] = found.agreement

    def drop_leaks(self, pairs: Pairs, agree: Agree | None = None) -> None:
        """Drop rows that are near a row of the evaluation images. The one that agrees best counts.

        Args:
            pairs: of our rows, and rows of the evaluation images.
        """
        pairs = pairs.where(self.reason[pairs.one] == KEPT)
        agreements = compared(pairs, agree)
        enough = ~(agreements < self.config.leak_agreement)
        pairs, agreements = pairs.where(enough), agreements[enough]
        order = np.lexsort((pairs.bits, -agreements, pairs.one))
        rows, first = np.unique(pairs.one[order], return_index=True)
        at = order[first]
        self.reason[rows] = LEAK
        self.leaks.update(zip(rows.tolist(), pairs.two[at].tolist(), strict=True))
        self.bits[rows], self.cosine[rows] = pairs.bits[at], pairs.cosine[at]
        self.agreement[rows] = agreements[at]

    def hash_bits(self, rows: Rows, others: Rows, against: Scanned | None = None) -> Rows:
        """Differing bits of the hashes in the nearest rotation. `NONE` without a hash."""
        theirs = (against or self.scanned).hash[others]
        faces = self.scanned.faces(rows, self.config.mirrored)
        bits = np.min([np.bitwise_count(face ^ theirs) for face in faces], axis=0)
        return np.where((faces[0] == 0) | (theirs == 0), NONE, bits).astype(np.int64)

    def settle(self) -> None:
        """Resolve chains of copies to remaining images. Copies of a leak are leaks."""
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
            for known in (self.bits, self.cosine, self.agreement):
                known[row] = known[kept]

    def _hashed(self) -> Rows:
        """Rows that are left and have a hash."""
        return self.left[self.scanned.hash[self.left] != 0]

    def _near(self, rows: Rows, theirs: NDArray[np.uint64], others: Rows) -> Iterator[Pairs]:
        """Those of `rows` and `others` whose hashes are near, block by block of the rows left."""
        index = HashIndex(theirs[others], self.alone)
        start, size = 0, _BLOCK
        while start < len(rows):
            block = rows[start : start + size]
            block = block[self.reason[block] == KEPT]
            start += size
            if not len(block):
                continue
            faces = self.scanned.faces(block, self.config.mirrored)
            found = zip(*map(index.near, faces), strict=True)
            one, two, bits = _nearest(*(np.concatenate(columns) for columns in found))
            yield Pairs(block[one], others[two], bits, np.full(len(one), np.nan, np.float32))
            # Many images of one hash: smaller blocks, since those found are removed.
            size = min(_BLOCK, max(1, size * _PAIRS // max(len(one), _PAIRS // 4)))


def _nearest(one: Rows, two: Rows, bits: Rows) -> tuple[Rows, Rows, Rows]:
    """Each pair once, with its fewest bits."""
    order = np.lexsort((bits, two, one))
    one, two, bits = one[order], two[order], bits[order]
    first = (np.diff(one, prepend=-1) != 0) | (np.diff(two, prepend=-1) != 0)
    return one[first], two[first], bits[first]


def _keys(digests: NDArray[np.uint64]) -> NDArray[np.void]:
    """Each digest as one value that can be sorted."""
    return np.ascontiguousarray(digests).view("V16").ravel()
