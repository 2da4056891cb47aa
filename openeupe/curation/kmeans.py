"""k-means on vectors on disk, by faiss."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from openeupe.curation.embed import Embeddings
from openeupe.curation.libraries import import_faiss

Centres = NDArray[np.float32]
_SAMPLED = 64  # vectors per cluster that k-means is fitted on; all are assigned afterwards
_ITERATIONS = 20


def sample(embeddings: Embeddings, clusters: int, seed: int) -> NDArray[np.float32]:
    """Vectors to find that many centres from: 64 for each, or all."""
    count = min(len(embeddings), _SAMPLED * clusters)
    places = np.random.default_rng(seed).choice(len(embeddings), count, replace=False)
    return embeddings.take(np.sort(places))


def kmeans(embeddings: Embeddings, clusters: int, seed: int) -> Centres:
    """`[clusters, D]` centres of unit length (spherical k-means) of a sample."""
    return fit(sample(embeddings, clusters, seed), clusters, seed)


def fit(vectors: NDArray[np.float32], clusters: int, seed: int) -> Centres:
    """Unit-length centres `[clusters, D]` of vectors. There must be at least as many vectors."""
    faiss = import_faiss()
    how = faiss.Kmeans(
        vectors.shape[1],
        clusters,
        niter=_ITERATIONS,
        seed=seed % 2**31,
        spherical=True,
        min_points_per_centroid=1,
        max_points_per_centroid=len(vectors),
    )
    how.train(np.ascontiguousarray(vectors))
    return np.asarray(how.centroids, dtype=np.float32)


def nearest(vectors: NDArray[Any], centres: Centres, count: int = 1) -> NDArray[np.int32]:
    """Numbers `[N, count]` of the nearest centres, nearest first."""
    faiss = import_faiss()
    _, found = faiss.knn(
        np.ascontiguousarray(vectors, dtype=np.float32),
        centres,
        min(count, len(centres)),
        metric=faiss.METRIC_INNER_PRODUCT,
    )
    return np.asarray(found, dtype=np.int32)
