"""Region head: patch tokens -> a logit per pixel, for text and boundaries.

A linear map of a 16 px patch token to one value cannot resolve a letter or an edge inside the
patch. Here it gives `cells * cells` values, arranged as the cells of the patch (pixel shuffle):
still one linear map of each token, but positions inside a patch can be predicted.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from openeupe.heads.linear import HeadSettings, LinearHead


class RegionHeadSettings(HeadSettings):
    """Settings of a `RegionHead`."""

    kind: Literal["regions"] = "regions"
    cells: int = Field(4, ge=1, le=256, description="Along a patch's side")


class RegionHead(LinearHead):
    """A logit of each cell of each patch: text regions and boundaries.

    Tokens `[B, D, h, w]` float32 -> logits `[B, h * cells, w * cells]` float32.

    >>> import torch
    >>> head = RegionHead(RegionHeadSettings(width=8, cells=4)).eval()
    >>> head(torch.randn(2, 8, 3, 5)).shape
    torch.Size([2, 12, 20])
    >>> head.pixels(torch.randn(2, 8, 3, 5), (48, 80)).shape
    torch.Size([2, 48, 80])
    """

    settings: RegionHeadSettings

    def __init__(self, settings: RegionHeadSettings) -> None:
        super().__init__(settings, settings.cells**2)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of every cell."""
        return F.pixel_shuffle(super().forward(tokens), self.settings.cells)[:, 0]

    @torch.no_grad()
    def pixels(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        """Logits `[B, height, width]`: cells upsampled bilinearly to `size`.

        Args:
            tokens: `[B, D, h, w]`, of any float type and on any device.
            size: (height, width).
        """
        coarse = self(tokens.to(self.linear.weight.device).float())
        return F.interpolate(coarse[:, None], size, mode="bilinear")[:, 0]

    def loss(
        self, tokens: Tensor, wanted: Tensor, weight: Tensor, *, balanced: bool = False
    ) -> Tensor:
        """Weighted mean of binary cross-entropy over cells.

        Args:
            tokens: `[B, D, h, w]` float32.
            wanted: `[B, h * cells, w * cells]` in [0, 1]: how much of each cell is "yes".
            weight: the same shape, in [0, 1]; 0 leaves a cell out.
            balanced: "yes" and "no" weigh the same in every batch (HED, arXiv 1504.06375, eq. 2).
        """
        logits = self(tokens)
        yes, weight = wanted.to(logits), weight.to(logits)
        if balanced:
            share = (weight * yes).sum() / weight.sum().clamp(min=1)
            weight = weight * (yes * (1 - share) + (1 - yes) * share)
        each = F.binary_cross_entropy_with_logits(logits, yes, weight, reduction="sum")
        return each / weight.sum().clamp(min=1e-6)


def cells_per_side(patch_size: int, stride: int) -> int:
    """Cells along a patch's side, each about `stride` pixels wide. At least 1."""
    return max(round(patch_size / stride), 1)
