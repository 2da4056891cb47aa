"""Hierarchical clustering, and sampling that is balanced at each level.

Vo et al. 2024, "Automatic Data Curation for Self-Supervised Learning: A Clustering-Based Approach"
(arXiv 2405.15613): k-means uses most of its clusters for the most frequent kinds of images.
Clustering the centres again, level after level, spreads clusters more evenly over kinds; sampling
gives every top cluster the same budget, each of its children the same part of it, and so on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openeupe.curation.embed import Embeddings
from openeupe.curation.kmeans import Centres, fit, nearest, sample
from openeupe.progress import Progress
from openeupe.seeds import derive_seed

_LARGEST = 4096  # clusters by default: k-means costs images times clusters
_SIZE = 8  # images of a cluster by default, on average
_FANOUT = 4
_TOPS = 256  # default minimum: fewer clusters would mix kinds of images


@dataclass(frozen=True)
class Tree:
    """Clusters of images, level by level, the finest first.

    leaf: int32 `[N]`, the finest cluster of each image.
    parents: for each level but the top, int32 `[clusters]`, the cluster of the next level.
    tops: number of clusters of the top level.
    """

    leaf: NDArray[np.int32]
    parents: list[NDArray[np.int32]]
    tops: int

    @property
    def sizes(self) -> list[int]:
        """Clusters of each level, the finest first."""
        return [*(len(level) for level in self.parents), self.tops]

    def counts(self, leaf: NDArray[np.int32]) -> NDArray[np.int64]:
        """Images of each finest cluster."""
        return np.bincount(leaf, minlength=self.sizes[0]).astype(np.int64)


def default_clusters(images: int) -> list[int]:
    """Clusters of each level for a number of images."""
    sizes = [max(1, min(images // _SIZE, _LARGEST))]
    while sizes[-1] >= _FANOUT * _TOPS:
        sizes.append(sizes[-1] // _FANOUT)
    return sizes


def cluster(
    embeddings: Embeddings, sizes: Sequence[int], rounds: int, seed: int, progress: Progress
) -> Tree:
    """Resampled hierarchical k-means of vectors that are centred first.

    The mean is removed, since pooled features of a ReLU network lie in a narrow cone.

    Args:
        sizes: clusters of each level, the finest first, each fewer than before.
        rounds: how often the points next to each centre, the same number for each, are clustered
            again, which moves centres out of the crowded regions.
    """
    with progress.task("clustering", len(sizes) + 1) as task:
        points = sample(embeddings, sizes[0], derive_seed(seed, "sample"))
        mean = points.mean(axis=0)
        points = centred(points, mean)
        levels: list[Centres] = []
        for level, size in enumerate(sizes):
            points = _resampled(points, size, rounds, derive_seed(seed, "level", level))
            levels.append(points)
            task.advance()
        leaf = np.concatenate(
            [nearest(centred(v, mean), levels[0])[:, 0] for _, v in embeddings.blocks()]
        )
        parents = [nearest(below, above)[:, 0] for below, above in pairwise(levels)]
    return Tree(leaf, parents, len(levels[-1]))


def centred(vectors: NDArray[Any], mean: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors `[N, D]` less the mean, brought to unit length."""
    moved = vectors.astype(np.float32) - mean
    length = np.linalg.norm(moved, axis=1, keepdims=True)
    return np.divide(moved, length, out=moved, where=length > 0)


def _resampled(points: NDArray[np.float32], clusters: int, rounds: int, seed: int) -> Centres:
    centres = fit(points, clusters, seed)
    each = max(1, len(points) // (2 * clusters))
    for number in range(rounds):
        own = nearest(points, centres)[:, 0]
        cosines = np.einsum("nd,nd->n", points, centres[own])
        order = np.lexsort((-cosines, own))  # by cluster, the nearest first
        starts = np.searchsorted(own[order], np.arange(clusters))
        place = np.arange(len(order)) - starts[own[order]]
        near = order[place < each]
        if len(near) < clusters:
            break
        centres = fit(points[np.sort(near)], clusters, derive_seed(seed, "again", number))
    return centres


def allocate(tree: Tree, capacities: NDArray[Any], budget: float) -> NDArray[np.float64]:
    """Share a budget among the finest clusters, evenly at every level.

    No cluster gets more than its capacity; the rest goes to clusters of the same parent.

    Args:
        capacities: `[clusters]` of the finest level.
        budget: at most the sum of the capacities.
    """
    held: list[NDArray[Any]] = [capacities]
    for above, clusters in zip(tree.parents, tree.sizes[1:], strict=True):
        held.append(np.bincount(above, held[-1], minlength=clusters))
    given = _fill(held[-1], budget)
    for level in range(len(tree.parents) - 1, -1, -1):
        below = np.zeros(len(held[level]))
        for number in np.flatnonzero(given > 0):
            children = np.flatnonzero(tree.parents[level] == number)
            below[children] = _fill(held[level][children], given[number])
        given = below
    return given


def _fill(capacities: NDArray[np.float64], budget: float) -> NDArray[np.float64]:
    """min(capacity, level) with the level at which the sum is the budget."""
    ordered = np.sort(capacities)
    count = len(ordered)
    # Budget that fills the i smallest, and all others to the i-th capacity.
    needed = np.cumsum(ordered) + ordered * np.arange(count - 1, -1, -1)
    full = int(np.searchsorted(needed, budget, side="left"))
    if full >= count:
        return capacities.copy()
    level = (budget - ordered[:full].sum()) / (count - full)
    return np.minimum(capacities, level)


def choose(tree: Tree, size: int, seed: int) -> NDArray[np.bool_]:
    """Choose `size` images, balanced at every level and at random within clusters."""
    counts = tree.counts(tree.leaf)
    size = min(size, len(tree.leaf))
    shares = allocate(tree, counts.astype(np.float64), size)
    whole = np.floor(shares + 1e-9).astype(np.int64)
    order = np.random.default_rng(derive_seed(seed, "choice")).permutation(len(counts))
    rest = order[np.argsort(-(shares - whole)[order], kind="stable")]  # ties by chance
    whole[rest[: size - int(whole.sum())]] += 1
    by_chance = np.random.default_rng(derive_seed(seed, "images")).permutation(len(tree.leaf))
    ordered = by_chance[np.argsort(tree.leaf[by_chance], kind="stable")]
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    place = np.arange(len(ordered)) - starts[tree.leaf[ordered]]
    kept = np.zeros(len(tree.leaf), dtype=bool)
    kept[ordered[place < whole[tree.leaf[ordered]]]] = True
    return kept


def weights(tree: Tree, kept: NDArray[np.bool_], largest: float) -> NDArray[np.float32]:
    """Sampling weights of the remaining images that balance every level. 0 for others.

    The mean is 1. No weight is above `largest`, so that a cluster of one image is not sampled
    too often.
    """
    counts = tree.counts(tree.leaf[kept])
    draws = allocate(tree, largest * counts, float(kept.sum()))
    each = np.divide(draws, counts, out=np.zeros(len(counts)), where=counts > 0)
    return np.where(kept, each[tree.leaf], 0).astype(np.float32)


def gini(amounts: NDArray[Any]) -> float:
    """Gini coefficient. 0: equal clusters; towards 1: one cluster has all images."""
    ordered = np.sort(amounts)
    count, total = len(ordered), ordered.sum()
    if not total:
        return 0.0
    return float((2 * np.arange(1, count + 1) - count - 1) @ ordered / (count * total))


def effective(amounts: NDArray[Any]) -> float:
    """Exponential of the entropy: as many clusters of one size would be as varied."""
    shares = amounts[amounts > 0] / amounts.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))
