"""Curation by embeddings: leaks, near copies, a seed set, and balance."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openeupe.curation import balance, crowding
from openeupe.curation.decide import BALANCE, KEPT, UNLIKE, Decisions
from openeupe.curation.duplicates import Agree, Pairs, joined
from openeupe.curation.embed import Embeddings
from openeupe.curation.neighbours import near_vectors, nearest_places
from openeupe.curation.scan import Scanned
from openeupe.progress import Progress
from openeupe.seeds import derive_seed

_QUERIES = 1024  # seed images compared at once


@dataclass
class Shares:
    """Clusters and sampling weights of the images of a pool.

    clusters: int32 `[N]`, of the finest level; -1: none. weights: float32 `[N]`.
    tree: of the clusters; None where nothing was balanced.
    """

    clusters: NDArray[np.int32]
    weights: NDArray[np.float32]
    tree: balance.Tree | None = None

    @classmethod
    def equal(cls, count: int) -> Shares:
        """No clusters; all weights 1."""
        return cls(np.full(count, -1, np.int32), np.ones(count, np.float32))

    def settle(self, decided: Decisions) -> None:
        """Give copies the cluster of their original; dropped images have weight 0."""
        copies = np.flatnonzero(decided.of >= 0)
        self.clusters[copies] = self.clusters[decided.of[copies]]
        self.weights[decided.reason != KEPT] = 0

    def about(self) -> dict[str, object]:
        """Sizes and parents of the clusters, and how even the finest are."""
        if self.tree is None:
            return {}
        sizes = self.tree.sizes
        found = np.ones(len(self.clusters))
        return {
            "clusters": sizes,
            "parents": [level.tolist() for level in self.tree.parents],
            "balance": {
                "before": _evenness(self.clusters, found, sizes[0]),
                "after": _evenness(self.clusters, self.weights, sizes[0]),
            },
        }


def drop_leaks(
    decided: Decisions,
    made: Embeddings,
    theirs: Scanned,
    those: Embeddings,
    agree: Agree | None,
) -> None:
    """Drop near copies of evaluation images, by hash and, if given, embedding."""
    decided.leaks_by_hash(theirs, agree)
    for pairs in _leaks(decided, made, those, theirs):
        decided.drop_leaks(pairs, agree)


def drop_copies(decided: Decisions, made: Embeddings, agree: Agree | None) -> None:
    """Drop near copies whose edges agree, by hash and, if given, embedding.

    All at once, so that every dropped image is near one that remains.
    """
    pairs = [*_pairs(decided, made.only(decided.left)), *decided.near_by_hash()]
    decided.drop_copies(joined(pairs), agree)


def drop_unlike(decided: Decisions, made: Embeddings, wanted: Embeddings) -> None:
    """Drop all but the nearest to any image of the seed set."""
    left = decided.left
    pool = made.only(left)
    near = np.zeros(len(pool), bool)
    for _, vectors in wanted.blocks():
        for start in range(0, len(vectors), _QUERIES):
            queries = vectors[start : start + _QUERIES].astype(np.float32)
            places, _ = nearest_places(pool, queries, decided.config.like_each)
            near[places[places >= 0]] = True
    decided.reason[left[~near]] = UNLIKE


def balanced(decided: Decisions, made: Embeddings, progress: Progress) -> Shares:
    """Cluster the remaining images, choose `size` of them, and set sampling weights."""
    config, pool = decided.config, made.only(decided.left)
    wanted = config.clusters or balance.default_clusters(len(pool))
    sizes = [min(size, len(pool)) for size in wanted]
    seed = derive_seed(config.seed, "clusters")
    tree = balance.cluster(pool, sizes, config.resampling, seed, progress)
    shares = Shares.equal(len(decided.reason))
    shares.tree = tree
    shares.clusters[pool.rows] = tree.leaf
    kept = np.ones(len(pool), bool)
    by_clusters = config.balance == "clusters"
    if config.size is not None:
        if by_clusters:
            kept = balance.choose(tree, config.size, config.seed)
        else:
            counts = crowding.crowding(pool, config.near, config.seed)
            kept = crowding.choose(counts, config.size, config.seed)
        decided.reason[pool.rows[~kept]] = BALANCE
    if by_clusters:
        shares.weights[pool.rows] = balance.weights(tree, kept, config.max_weight)
    else:
        rows = pool.rows[kept]
        counts = crowding.crowding(pool.only(rows), config.near, config.seed)
        shares.weights[rows] = crowding.weights(counts, config.max_weight)
    return shares


def _pairs(decided: Decisions, made: Embeddings) -> Iterator[Pairs]:
    """Rows that both the embedding and the hash find near."""
    config = decided.config
    for one, two, cosines in near_vectors(made, config.similarity, config.seed):
        rows, others = made.rows[one], made.rows[two]
        yield _near(Pairs(rows, others, decided.hash_bits(rows, others), cosines), decided)


def _leaks(
    decided: Decisions, made: Embeddings, those: Embeddings, theirs: Scanned
) -> Iterator[Pairs]:
    """Rows and evaluation images that are near by embedding and hash."""
    for first, queries in those.blocks():
        towards = queries.astype(np.float32).T
        for start, vectors in made.blocks():
            cosines = vectors.astype(np.float32) @ towards
            one, two = np.nonzero(cosines >= decided.config.leak_similarity)
            rows, others = made.rows[start + one], those.rows[first + two]
            bits = decided.hash_bits(rows, others, theirs)
            yield _near(Pairs(rows, others, bits, cosines[one, two]), decided)


def _near(pairs: Pairs, decided: Decisions) -> Pairs:
    return pairs.where(pairs.bits <= decided.hash_distance)


def _evenness(clusters: NDArray[np.int32], amounts: NDArray[Any], count: int) -> dict[str, float]:
    """Of the finest clusters, whose images count by these amounts."""
    known = clusters >= 0
    sums = np.bincount(clusters[known], amounts[known], minlength=count)
    return {
        "gini": round(balance.gini(sums), 4),
        "effective_clusters": round(balance.effective(sums), 1),
    }
