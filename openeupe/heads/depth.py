"""Depth head: patch tokens -> metres per pixel."""

from __future__ import annotations

from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional as F

from openeupe.heads.linear import HeadSettings, LinearHead
from openeupe.limits import WIDTH


class DepthHeadSettings(HeadSettings):
    """Settings of a `DepthHead`."""

    kind: Literal["depth"] = "depth"
    bins: int = Field(256, ge=2, le=WIDTH)
    min_depth: float = Field(0.001, gt=0, description="Metres")
    max_depth: float = Field(10.0, gt=0, description="Metres")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_depth >= self.max_depth:
            raise ValueError("min_depth must be below max_depth")
        return self


class DepthHead(LinearHead):
    """Linear depth head with depth bins (the EUPE paper, C.4).

    Tokens `[B, D, h, w]` float32 -> bin logits `[B, bins, h, w]` float32; `depth` gives metres.

    >>> import torch
    >>> head = DepthHead(DepthHeadSettings(width=8, bins=32)).eval()
    >>> metres = head.depth(torch.randn(2, 8, 4, 6))
    >>> metres.shape, bool((metres > 0).all())
    (torch.Size([2, 4, 6]), True)
    """

    settings: DepthHeadSettings

    def __init__(self, settings: DepthHeadSettings) -> None:
        super().__init__(settings, settings.bins)

    def depth(self, tokens: Tensor) -> Tensor:
        """Metres `[B, h, w]` of tokens `[B, D, h, w]`."""
        return depth_from_bins(self(tokens), self.settings.min_depth, self.settings.max_depth)

    def loss(self, tokens: Tensor, truth: Tensor, *, warming_up: bool = False) -> Tensor:
        """SigLoss over all known pixels of a batch, on upsampled depths.

        Args:
            tokens: `[B, D, h, w]` float32.
            truth: `[B, H, W]` metres; those outside of `min_depth` to `max_depth` are unknown.
            warming_up: the variance is left out.
        """
        depth = upsampled(self.depth(tokens), (truth.shape[-2], truth.shape[-1]))
        known = (truth > self.settings.min_depth) & (truth <= self.settings.max_depth)
        return sig_loss(depth[known], truth[known], warming_up)


def depth_from_bins(logits: Tensor, lowest: float, highest: float) -> Tensor:
    """Metres `[B, h, w]`: bins `linspace(lowest, highest)` weighted by relu(logits) + 0.1."""
    weights = logits.relu() + 0.1
    bins = torch.linspace(lowest, highest, logits.shape[1], device=logits.device)
    return torch.einsum("bchw,c->bhw", weights, bins) / weights.sum(1)


def sig_loss(predicted: Tensor, truth: Tensor, warming_up: bool = False) -> Tensor:
    """sqrt(var(g) + 0.15 mean(g)^2), g = log(predicted + 1e-3) - log(truth + 1e-3).

    Args:
        predicted, truth: metres `[P]` of all known pixels of the batch; var is unbiased.
        warming_up: the variance is left out.
    """
    if len(truth) < 2:  # no variance; a batch without depths
        return predicted.sum() * 0
    g = torch.log(predicted + 1e-3) - torch.log(truth + 1e-3)
    squared = 0.15 * g.mean() ** 2 + (0 if warming_up else g.var())
    return squared if squared <= 0 else torch.sqrt(squared)  # a root has no gradient at 0


def upsampled(depth: Tensor, size: tuple[int, int]) -> Tensor:
    """Depths `[..., h, w]`, bilinearly at `size`."""
    flat = depth.reshape(-1, 1, *depth.shape[-2:])
    return F.interpolate(flat, size, mode="bilinear").reshape(*depth.shape[:-2], *size)
