"""Weighted sampling as a pure function of the position in an epoch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class Weights:
    """Weighted epochs of a source, as long as its number of images.

    Places are spread over the images as evenly as their weights allow (systematic sampling): an
    image of weight w, where the mean is 1, comes floor(w) or ceil(w) times, and w times on average
    over epochs.

    Args:
        weights: positive numbers, one for each image; only their ratios matter.
    """

    def __init__(self, weights: NDArray[np.floating]) -> None:
        ends = np.cumsum(weights, dtype=np.float64)
        self._ends = ends * (len(ends) / ends[-1])

    def __call__(
        self, places: NDArray[np.int64], start: float
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Which image has each place of an epoch, and which of the image's visits this is.

        Args:
            places: int64, within `range(number of images)`.
            start: in [0, 1): where the first place falls; each epoch has another.

        Returns:
            Indices and visits (from 0 in each epoch), int64 of the shape of `places`.
        """
        found = np.searchsorted(self._ends, places + start, side="right")
        indices = np.minimum(found, len(self._ends) - 1).astype(np.int64)
        before = np.where(indices > 0, self._ends[indices - 1], 0.0)
        visits = places - np.ceil(before - start).astype(np.int64)
        return indices, np.maximum(visits, 0)
