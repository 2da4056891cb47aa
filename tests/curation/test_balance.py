from __future__ import annotations

import numpy as np
import pytest

from openeupe.curation.balance import (
    Tree,
    allocate,
    choose,
    default_clusters,
    effective,
    gini,
    weights,
)


@pytest.fixture
def tree() -> Tree:
    """Two tops: one of a single cluster of 100 images, one of clusters of 8, 2 and none."""
    leaf = np.repeat([0, 1, 2], [100, 8, 2]).astype(np.int32)
    return Tree(leaf, [np.array([0, 1, 1, 1], np.int32)], 2)


def test_budgets_are_even_at_every_level(tree: Tree) -> None:
    counts = tree.counts(tree.leaf)
    assert allocate(tree, counts, 4).tolist() == [2, 1, 1, 0]
    assert allocate(tree, counts, 12).tolist() == [6, 4, 2, 0]
    # What the small top cannot take goes to the other one.
    assert allocate(tree, counts, 60).tolist() == [50, 8, 2, 0]
    assert allocate(tree, counts, 110).tolist() == [100, 8, 2, 0]


@pytest.mark.parametrize("size", [1, 7, 60, 109, 500])
def test_the_choice_has_the_size_asked_for(tree: Tree, size: int) -> None:
    kept = choose(tree, size, seed=1)
    assert kept.sum() == min(size, 110)
    assert (kept == choose(tree, size, seed=1)).all()
    shares = allocate(tree, tree.counts(tree.leaf), min(size, 110))
    assert (np.abs(tree.counts(tree.leaf[kept]) - shares) < 1).all()


def test_weights_balance_what_is_kept(tree: Tree) -> None:
    kept = np.ones(110, bool)
    free = weights(tree, kept, largest=100)
    drawn = np.bincount(tree.leaf, free)
    assert drawn == pytest.approx([55, 27.5, 27.5], rel=1e-5)
    capped = weights(tree, kept, largest=5)
    assert capped.mean() == pytest.approx(1, rel=1e-5)
    assert capped.max() == pytest.approx(5)
    kept[:90] = False
    assert (weights(tree, kept, 5)[:90] == 0).all()


def test_evenness() -> None:
    assert gini(np.full(7, 3.0)) == pytest.approx(0)
    assert gini(np.array([0.0, 0, 0, 9])) == pytest.approx(0.75)
    assert effective(np.full(7, 3.0)) == pytest.approx(7)
    assert effective(np.array([5.0, 0])) == pytest.approx(1)


def test_default_clusters_grow_with_the_heap() -> None:
    assert default_clusters(5) == [1]
    assert default_clusters(2000) == [250]
    assert default_clusters(10**7) == [4096, 1024, 256]
