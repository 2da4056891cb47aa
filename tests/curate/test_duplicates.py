from __future__ import annotations

import numpy as np

from openeupe.curate.duplicates import exact_copies, near_copies, ranks


def test_the_first_of_equal_files_stays() -> None:
    digests = np.array([[1, 2], [3, 4], [1, 2], [3, 5], [1, 2], [3, 4]], np.uint64)
    copies, first = exact_copies(digests, np.array([1, 2, 3, 4, 5]))
    assert dict(zip(copies.tolist(), first.tolist(), strict=True)) == {4: 2, 5: 1}
    assert not len(exact_copies(digests, np.empty(0, np.int64))[0])


def test_a_chain_keeps_both_its_ends() -> None:
    """0 is near 1, 1 near 2, and 0 not near 2: only 1 is a copy of something kept."""
    rank = np.arange(3)
    chain = [(1, 0, 4, 0.9), (1, 2, 5, 0.9), (0, 1, 4, 0.9)]
    assert near_copies(chain, rank) == {1: (0, 4, 0.9)}


def test_the_larger_copy_stays() -> None:
    width, height = np.array([10, 20, 20], np.int32), np.array([10, 5, 10], np.int32)
    assert ranks(width, height, np.array([9, 8, 7])).tolist() == [1, 2, 0]
