"""Balance by neighbours: images with many similar ones are sampled less often.

k-means gives frequent kinds of images more clusters and mixes rare ones; counting neighbours does
neither (docs/curate.md compares both with true classes).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from openeupe.curation.balance import centred
from openeupe.curation.embed import Embeddings
from openeupe.curation.kmeans import sample
from openeupe.curation.neighbours import cells
from openeupe.seeds import derive_seed

_BLOCK = 2048


def crowding(embeddings: Embeddings, cosine: float, seed: int) -> NDArray[np.int64]:
    """Number of neighbours of each image, itself included: int64 `[N]`.

    Vectors are centred first. Above 8,192 images only those of the same region are counted.

    Args:
        cosine: of the centred vectors that count as near.
    """
    mean = sample(embeddings, 256, derive_seed(seed, "mean")).mean(axis=0)
    counts = np.ones(len(embeddings), np.int64)
    for cell in cells(embeddings, derive_seed(seed, "cells")):
        vectors = centred(embeddings.take(cell), mean)
        for start in range(0, len(cell), _BLOCK):
            some = cell[start : start + _BLOCK]
            near = (vectors[start : start + _BLOCK] @ vectors.T >= cosine).sum(axis=1)
            counts[some] = np.maximum(counts[some], near)
    return counts


def choose(counts: NDArray[np.int64], size: int, seed: int) -> NDArray[np.bool_]:
    """Choose `size` images at random, in proportion to 1 / count.

    Efraimidis & Spirakis 2006, "Weighted random sampling with a reservoir".
    """
    luck = np.random.default_rng(derive_seed(seed, "choice")).random(len(counts))
    keys = counts * np.log(np.maximum(luck, 1e-300))
    kept = np.zeros(len(counts), bool)
    kept[np.argsort(-keys, kind="stable")[:size]] = True
    return kept


def weights(counts: NDArray[np.int64], largest: float) -> NDArray[np.float32]:
    """In proportion to 1 / count, mean 1, none above `largest`."""
    shares = 1 / counts
    low, high = 0.0, largest * float(counts.max())
    for _ in range(60):  # the mean of the capped shares grows with their scale
        scale = (low + high) / 2
        if np.minimum(scale * shares, largest).mean() < 1:
            low = scale
        else:
            high = scale
    return np.minimum(high * shares, largest).astype(np.float32)
