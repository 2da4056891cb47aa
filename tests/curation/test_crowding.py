from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from openeupe.curation.crowding import choose, crowding, weights


class Vectors:
    """Kinds of 60, 20 and 4 images, well apart."""

    def __init__(self) -> None:
        draw = np.random.default_rng(0)
        self.kind = np.repeat([0, 1, 2], [60, 20, 4])
        vectors = np.eye(3, 16)[self.kind] + 0.02 * draw.standard_normal((84, 16)) + 1
        self._all = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def __len__(self) -> int:
        return len(self._all)

    def blocks(self) -> Iterator[tuple[int, NDArray[np.float16]]]:
        yield 0, self._all.astype(np.float16)

    def take(self, places: NDArray[np.int64]) -> NDArray[np.float32]:
        return self._all[places].astype(np.float32)


def test_kinds_are_drawn_alike_whatever_their_size() -> None:
    vectors = Vectors()
    counts = crowding(vectors, 0.5, 0)  # type: ignore[arg-type]
    assert counts.tolist() == np.repeat([60, 20, 4], [60, 20, 4]).tolist()
    free = weights(counts, 100)
    assert np.bincount(vectors.kind, free) == pytest.approx([28, 28, 28], rel=1e-4)
    capped = weights(counts, 5)
    assert capped.max() == pytest.approx(5)
    assert capped.mean() == pytest.approx(1, rel=1e-4)
    assert weights(np.ones(7, np.int64), 1).tolist() == [1] * 7


def test_the_choice_is_balanced_too() -> None:
    vectors = Vectors()
    counts = crowding(vectors, 0.5, 0)  # type: ignore[arg-type]
    kept = choose(counts, 12, 3)
    assert kept.sum() == 12
    assert (kept == choose(counts, 12, 3)).all()
    several = [np.bincount(vectors.kind[choose(counts, 9, s)], minlength=3) for s in range(200)]
    assert np.mean(several, axis=0) == pytest.approx([3.2, 3.2, 2.6], abs=0.5)
    assert choose(counts, 500, 0).all()
