"""A yes-or-no linear probe finer than the patch grid: one output for each cell of a patch.

A linear map of a 16 px patch token to one value cannot tell where in the patch a letter or an edge
is. Here it gives `cells * cells` values, laid out as the cells of the patch (pixel shuffle): still
one linear map of each token, but an encoder that keeps position inside a patch can show it.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from openeupe.data import View
from openeupe.encoders import Encoder
from openeupe.evaluate.column import Column
from openeupe.evaluate.features import fitting_side
from openeupe.evaluate.probe import LinearProbe, fit_cached
from openeupe.seeds import derive_seed

LEVELS = 99  # thresholds 0.01 ... 0.99 of a probability, as BSDS has them


class CellColumn(Column):
    """Settings that the columns of such probes share."""

    side: int = Field(448, ge=1, description="Pixels of the view, fitted to the patch size")
    stride: int = Field(4, ge=1, description="Pixels of a cell, about")
    steps: int = Field(500, ge=1)
    batch_size: int = Field(16, ge=1)
    lr: float = Field(3e-3, gt=0)
    weight_decay: float = Field(1e-3, ge=0)
    warmup_steps: int = Field(50, ge=0)
    seeds: int = Field(3, ge=1)

    def view_and_cells(self, encoder: Encoder) -> tuple[View, int]:
        """The square view that images are shown in, and how many cells its side has."""
        side, patch = fitting_side(encoder, self.side), encoder.patch_size
        return View(side, side, "pad"), cells_per_side(patch, self.stride) * (side // patch)

    def fit(
        self,
        tokens: Tensor,
        wanted: Tensor,
        judged: Tensor,
        *,
        balanced: bool,
        device: torch.device | str,
    ) -> list[LinearProbe]:
        """A probe for each seed; see `fit_cells`."""
        return [
            fit_cells(
                tokens,
                wanted,
                judged,
                balanced=balanced,
                steps=self.steps,
                batch_size=self.batch_size,
                lr=self.lr,
                weight_decay=self.weight_decay,
                warmup_steps=self.warmup_steps,
                seed=seed,
                device=device,
            )
            for seed in range(self.seeds)
        ]


def cells_per_side(patch_size: int, stride: int) -> int:
    """Cells along a patch's side, so that one is about `stride` pixels wide (at least 1)."""
    return max(round(patch_size / stride), 1)


def fit_cells(
    tokens: Tensor,
    wanted: Tensor,
    judged: Tensor,
    *,
    balanced: bool,
    steps: int,
    batch_size: int,
    lr: float,
    weight_decay: float,
    warmup_steps: int,
    seed: int,
    device: torch.device | str = "cpu",
) -> LinearProbe:
    """Train a probe by binary cross-entropy on cells.

    Args:
        tokens: `[N, D, h, w]`, on the CPU.
        wanted: `[N, h * cells, w * cells]` in [0, 1]: how much of each cell is "yes".
        judged: the same shape, in [0, 1]: each cell's weight; 0 leaves it out.
        balanced: "yes" and "no" weigh the same in every batch (HED, arXiv 1504.06375, eq. 2).
    """
    cells = wanted.shape[-1] // tokens.shape[-1]

    def loss(outputs: Tensor, chosen: Tensor) -> Tensor:
        yes = wanted[chosen].to(outputs)
        weight = judged[chosen].to(outputs)
        if balanced:
            share = (weight * yes).sum() / weight.sum().clamp(min=1)
            weight = weight * (yes * (1 - share) + (1 - yes) * share)
        each = F.binary_cross_entropy_with_logits(
            F.pixel_shuffle(outputs, cells)[:, 0], yes, weight, reduction="sum"
        )
        return each / weight.sum().clamp(min=1e-6)

    return fit_cached(
        tokens,
        loss,
        outputs=cells * cells,
        steps=steps,
        batch_size=batch_size,
        lr=lr,
        weight_decay=weight_decay,
        warmup_steps=warmup_steps,
        seed=derive_seed(seed, "cells"),
        device=device,
    )


@torch.no_grad()
def cell_logits(probe: LinearProbe, tokens: Tensor, side: tuple[int, int]) -> Tensor:
    """Logits `[B, height, width]` of every pixel of a view, float32 on the probe's device.

    Cells are upsampled bilinearly to `side` (height, width).
    """
    weight = probe.linear.weight
    cells = round(weight.shape[0] ** 0.5)
    coarse = F.pixel_shuffle(probe(tokens.to(weight.device).float()), cells)
    return F.interpolate(coarse, side, mode="bilinear")[:, 0]


def levels_reached(probability: NDArray[np.floating]) -> NDArray[np.int64]:
    """How many of the thresholds each of `probability [P]` reaches, 0 to 99."""
    levels = np.floor(probability.astype(np.float64) * 100 + 1e-6).astype(np.int64)
    return levels.clip(0, LEVELS)


def reaching(levels: NDArray[np.int64]) -> NDArray[np.float64]:
    """`[99]`: how many pixels reach each threshold, of their `levels_reached [P]`."""
    counts = np.bincount(levels, minlength=LEVELS + 1)[::-1].cumsum()[::-1]
    return counts[1:].astype(np.float64)
