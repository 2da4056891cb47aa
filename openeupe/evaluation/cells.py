"""Common parts of text regions and boundaries: a head with cells."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from openeupe.data import View
from openeupe.encoders import Encoder
from openeupe.evaluation.benchmark import Benchmark, EvaluatedEncoder
from openeupe.evaluation.features import fitting_resolution
from openeupe.evaluation.variants import fit_heads
from openeupe.heads.fitting import cached_batches
from openeupe.heads.regions import RegionHead, RegionHeadSettings, cells_per_side
from openeupe.heads.settings import BatchSize, FitSettings, Rate, Steps, WarmupSteps
from openeupe.seeds import derive_seed

LEVELS = 99  # thresholds 0.01 ... 0.99 of a probability, as BSDS has them


class CellBenchmark(Benchmark, FitSettings):
    """Settings that these benchmarks share."""

    resolution: int = Field(448, ge=1, description="Pixels of the view, fitted to the patch size")
    stride: int = Field(4, ge=1, description="Pixels of a cell, about")
    steps: Steps = 500
    batch_size: BatchSize = 16
    lr: Rate = 3e-3
    warmup_steps: WarmupSteps = 50
    seeds: int = Field(3, ge=1)

    def view_and_cells(self, encoder: Encoder) -> tuple[View, int]:
        """The square view of images, and its number of cells across."""
        resolution, patch = fitting_resolution(encoder, self.resolution), encoder.patch_size
        return View(resolution, resolution, "pad"), cells_per_side(patch, self.stride) * (
            resolution // patch
        )

    def fit(
        self,
        evaluated: EvaluatedEncoder,
        tokens: Tensor,
        wanted: Tensor,
        weight: Tensor,
        *,
        balanced: bool,
    ) -> list[RegionHead]:
        """A head for each seed. Arguments as in `RegionHead.loss`, of all training images."""
        cells = wanted.shape[-1] // tokens.shape[-1]
        return fit_heads(
            evaluated,
            partial(RegionHead, RegionHeadSettings(width=tokens.shape[1], cells=cells)),
            partial(cached_batches, tokens, (wanted, weight), self),
            lambda head, tokens, targets, _: head.loss(tokens, *targets, balanced=balanced),
            self,
            (derive_seed(seed, "cells") for seed in range(self.seeds)),
        )


def levels_reached(probability: NDArray[np.floating]) -> NDArray[np.int64]:
    """How many of the thresholds each of `probability [P]` reaches, 0 to 99."""
    levels = np.floor(probability.astype(np.float64) * 100 + 1e-6).astype(np.int64)
    return levels.clip(0, LEVELS)


def reaching(levels: NDArray[np.int64]) -> NDArray[np.float64]:
    """`[99]`: how many pixels reach each threshold, of their `levels_reached [P]`."""
    counts = np.bincount(levels, minlength=LEVELS + 1)[::-1].cumsum()[::-1]
    return counts[1:].astype(np.float64)
