"""Linear head: BatchNorm and a 1x1 convolution on patch tokens."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from openeupe.config import Config
from openeupe.limits import WIDTH


class HeadSettings(Config):
    """Settings of a head's network, saved with the weights."""

    width: int = Field(ge=1, le=WIDTH, description="Of the patch tokens")
    dropout: float = Field(0.0, ge=0, lt=1, description="Share of channels dropped in training")


class LinearHead(nn.Module):
    """Dropout2d -> BatchNorm2d -> 1x1 convolution: `[B, D, h, w]` tokens -> `[B, outputs, h, w]`.

    Weights start from N(0, 0.01) and biases from 0 (the EUPE paper, arXiv 2603.22387, C.3, C.4).
    With several devices convert it by `nn.SyncBatchNorm.convert_sync_batchnorm`.

    >>> import torch
    >>> head = LinearHead(HeadSettings(width=16), outputs=4).eval()
    >>> head(torch.zeros(2, 16, 7, 5)).shape
    torch.Size([2, 4, 7, 5])
    """

    def __init__(self, settings: HeadSettings, outputs: int) -> None:
        super().__init__()
        self.settings = settings
        self.dropout = nn.Dropout2d(settings.dropout) if settings.dropout else nn.Identity()
        self.norm = nn.BatchNorm2d(settings.width)
        self.linear = nn.Conv2d(settings.width, outputs, 1)
        nn.init.normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)  # type: ignore[arg-type]

    def forward(self, tokens: Tensor) -> Tensor:
        """Outputs of float32 patch tokens, at the resolution of their grid."""
        out: Tensor = self.linear(self.norm(self.dropout(tokens)))
        return out
