from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from openeupe.curation.duplicates import Pairs, Rows, exact_copies, joined, near_copies, ranks


def test_the_first_of_equal_files_stays() -> None:
    digests = np.array([[1, 2], [3, 4], [1, 2], [3, 5], [1, 2], [3, 4]], np.uint64)
    copies, first = exact_copies(digests, np.array([1, 2, 3, 4, 5]))
    assert dict(zip(copies.tolist(), first.tolist(), strict=True)) == {4: 2, 5: 1}
    assert not len(exact_copies(digests, np.empty(0, np.int64))[0])


def _pairs(*rows: tuple[int, int, int]) -> Pairs:
    one, two, bits = (np.array(column) for column in zip(*rows, strict=True))
    return joined([Pairs(one, two, bits, np.full(len(one), 0.9, np.float32))])


def test_a_chain_keeps_both_its_ends() -> None:
    """0 is near 1, 1 near 2, and 0 not near 2: only 1 is a copy of something kept."""
    found = near_copies(_pairs((1, 0, 4), (1, 2, 5), (0, 1, 3)), np.arange(3))
    assert (found.rows.tolist(), found.of.tolist(), found.bits.tolist()) == ([1], [0], [3])
    assert np.isnan(found.agreement).all()
    assert not len(near_copies(joined([]), np.arange(3)).rows)


def test_what_does_not_agree_stays() -> None:
    """Each pair that still counts is compared once; 2 is then a copy of 1, not of 0."""
    asked = []

    def agree(rows: Rows, others: Rows) -> NDArray[np.float32]:
        asked.extend(zip(rows.tolist(), others.tolist(), strict=True))
        return np.where(rows == 0, 0.5, 0.95).astype(np.float32)

    pairs = _pairs((0, 1, 2), (2, 0, 2), (2, 1, 2), (1, 2, 2))
    found = near_copies(pairs, np.arange(3), agree, 0.9)
    assert (found.rows.tolist(), found.of.tolist()) == ([2], [1])
    assert found.agreement.tolist() == [np.float32(0.95)]
    assert sorted(asked) == [(0, 1), (0, 2), (1, 2)]


def test_the_larger_copy_stays() -> None:
    width, height = np.array([10, 20, 20], np.int32), np.array([10, 5, 10], np.int32)
    assert ranks(width, height, np.array([9, 8, 7])).tolist() == [1, 2, 0]
