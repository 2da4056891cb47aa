"""Baseline encoder whose tokens are averaged pixels, without a network."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from openeupe.encoders.encoder import Encoder, Tokens


class RawPixels(Encoder):
    """Encoder without a network: tokens are downsampled pixels.

    Patch tokens: each 16 x 16 patch averaged to 8 x 8 pixels of three channels (192). Class token:
    the whole image averaged to 16 x 16 pixels (768). An encoder should beat this baseline.
    `pretrained` has no effect.
    """

    def __init__(self, *, pretrained: bool = False) -> None:
        super().__init__(
            name="raw_pixels",
            args={},
            cls_dim=16 * 16 * 3,
            patch_dim=8 * 8 * 3,
            patch_size=16,
            resolution=224,
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
        )

    def tokens(self, pixels: Tensor) -> Tokens:
        cls = F.adaptive_avg_pool2d(pixels, 16).flatten(1)
        return Tokens(cls, F.pixel_unshuffle(F.avg_pool2d(pixels, 2), 8))
