"""Segmentation head: patch tokens -> class of every pixel."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from openeupe.datasets.dense_files import IGNORE
from openeupe.heads.linear import HeadSettings, LinearHead


class SegmentationHeadSettings(HeadSettings):
    """Settings of a `SegmentationHead`."""

    kind: Literal["segmentation"] = "segmentation"
    classes: tuple[str, ...] = Field(min_length=1, max_length=IGNORE, description="Their names")


class SegmentationHead(LinearHead):
    """Linear segmentation head (the EUPE paper, C.3).

    Tokens `[B, D, h, w]` float32 -> logits `[B, C, h, w]` float32.

    >>> import torch
    >>> settings = SegmentationHeadSettings(width=8, classes=("sky", "sea", "land"))
    >>> head = SegmentationHead(settings).eval()
    >>> logits = head(torch.randn(1, 8, 4, 6))
    >>> best_classes(logits[0], (64, 96)).shape
    torch.Size([64, 96])
    """

    settings: SegmentationHeadSettings

    def __init__(self, settings: SegmentationHeadSettings) -> None:
        super().__init__(settings, len(settings.classes))

    def loss(self, tokens: Tensor, labels: Tensor, *, over_all: bool = False) -> Tensor:
        """Cross-entropy on upsampled logits.

        Args:
            tokens: `[B, D, h, w]` float32.
            labels: `[B, H, W]` class numbers; 255 is left out.
            over_all: pixels without a label count in the mean, as in the released code.
        """
        return upsampled_loss(self(tokens), labels, over_all=over_all)


def upsampled_loss(logits: Tensor, labels: Tensor, *, over_all: bool = False) -> Tensor:
    """Mean cross-entropy of `[B, C, h, w]` logits, upsampled to labels `[B, H, W]` (255: none).

    over_all: pixels without a label count in the mean, with a loss of 0, as in the released code.
    """
    finer = F.interpolate(logits, labels.shape[-2:], mode="bilinear")
    total = F.cross_entropy(finer, labels.long(), ignore_index=IGNORE, reduction="sum")
    if over_all:
        return total / labels.numel()
    return total / (labels != IGNORE).sum().clamp(min=1)  # a batch may hold no label at all


def best_classes(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """`[height, width]` int64: argmax of `logits [C, h, w]` upsampled bilinearly to `size`.

    A bilinear value lies between those of its four neighbours. So a class whose largest value
    around a place is nowhere above the best class's smallest one cannot win, and is not upsampled:
    of 130 classes about ten are left.
    """
    edged = F.pad(logits[None], (1, 1, 1, 1), mode="replicate")[0]
    most, least = F.max_pool2d(edged, 2, 1), -F.max_pool2d(-edged, 2, 1)
    able = (most >= least.amax(0)).flatten(1).any(1).nonzero()[:, 0]
    finer = F.interpolate(logits[able][None], size, mode="bilinear")[0]
    return able[finer.argmax(0)]
