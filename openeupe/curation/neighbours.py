"""Nearest neighbours of vectors, by cells of space to limit memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from openeupe.curation.embed import Embeddings
from openeupe.curation.kmeans import kmeans, nearest

_CELL = 8192  # vectors of a cell, about; fewer images than that are all compared with one another
_NEAREST_CELLS = 2  # in which each vector is looked for: a pair at a border meets in one of them
_BLOCK = 4096


def near_vectors(
    embeddings: Embeddings, similarity: float, seed: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]]:
    """Pairs of places with at least that cosine, in batches. The smaller place is first.

    With more than one cell a pair can be missed if its two share none of their two nearest cells,
    and one that shares both comes twice.
    """
    for cell in cells(embeddings, seed):
        vectors = embeddings.take(cell)
        for start in range(0, len(cell), _BLOCK):
            cosines = vectors[start : start + _BLOCK] @ vectors[start:].T
            one, two = np.nonzero(np.triu(cosines, 1) >= similarity)
            if len(one):
                yield cell[start + one], cell[start + two], cosines[one, two]


def nearest_places(
    embeddings: Embeddings, queries: NDArray[np.float32], count: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The `count` places nearest to each of `queries` `[Q, D]`, and their cosines: `[Q, count]`.

    All are compared, part after part; the nearest come first. Where there are fewer, places are -1.
    """
    places = np.full((len(queries), count), -1, np.int64)
    cosines = np.full((len(queries), count), -np.inf, np.float32)
    for start, vectors in embeddings.blocks():
        found = queries @ vectors.astype(np.float32).T
        numbers = np.broadcast_to(np.arange(start, start + len(vectors)), found.shape)
        both = np.concatenate([cosines, found], axis=1)
        which = np.concatenate([places, numbers], axis=1)
        best = np.argsort(-both, axis=1, kind="stable")[:, :count]
        cosines = np.take_along_axis(both, best, axis=1)
        places = np.take_along_axis(which, best, axis=1)
    return places, cosines


def cells(embeddings: Embeddings, seed: int) -> Iterator[NDArray[np.int64]]:
    """Places of each cell, ascending; all in one where they are few."""
    count = -(-_NEAREST_CELLS * len(embeddings) // _CELL)
    if len(embeddings) <= _CELL:
        yield np.arange(len(embeddings))
        return
    centres = kmeans(embeddings, count, seed)
    cells = np.concatenate(
        [nearest(vectors, centres, _NEAREST_CELLS) for _, vectors in embeddings.blocks()]
    )
    for cell in range(count):
        yield np.flatnonzero((cells == cell).any(axis=1))
