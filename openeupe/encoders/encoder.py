"""Encoder interface shared by teachers, proxy and students."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor, nn

from openeupe.errors import InputError

Network = TypeVar("Network", bound=nn.Module)
Arguments = dict[str, Any]  # of an architecture, checked by `arguments.check_arguments`


class Tokens(NamedTuple):
    """Encoder output for a batch of images.

    cls: `[B, Dc]` class token, or the pooled token of a network that has none.
    patches: `[B, Dp, h, w]` patch tokens on their grid.
    `Dc` and `Dp` may differ (PEcore-G: 1280 and 1536).
    """

    cls: Tensor
    patches: Tensor


class TokenWidths(Protocol):
    """Widths `Dc` and `Dp` of an encoder's class and patch tokens."""

    cls_dim: int
    patch_dim: int


class Encoder(nn.Module):
    """A frozen or trainable vision backbone that owns its input constants.

    Normalization is part of the encoder, so that one batch serves all encoders and an exported
    file takes raw pixels.

    Args:
        name: the name that `openeupe.encoders.create` rebuilds this architecture from.
        args: keyword arguments for the same rebuild.
        cls_dim: width `Dc` of the class token.
        patch_dim: width `Dp` of the patch tokens.
        patch_size: pixels between neighbouring patch tokens; image sides must be multiples of it.
        resolution: native height and width of images, in pixels.
        mean: RGB input constants on the [0, 1] scale.
        std: likewise.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        name: str,
        args: Arguments,
        cls_dim: int,
        patch_dim: int,
        patch_size: int,
        resolution: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> None:
        super().__init__()
        self.name = name
        self.args = args
        self.cls_dim = cls_dim
        self.patch_dim = patch_dim
        self.patch_size = patch_size
        self.resolution = resolution
        # Constants of the architecture: saved in the config, not with the weights.
        self.register_buffer("mean", torch.zeros(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.ones(1, 3, 1, 1), persistent=False)
        self.set_constants(mean, std)

    @property
    def constants(self) -> tuple[list[float], list[float]]:
        """Input constants (mean, std), exact even if the network is in bfloat16."""
        mean, std = (
            exact if torch.equal(torch.tensor(exact).to(now), now.flatten()) else now.tolist()
            for exact, now in zip(
                self._exact, (self.mean.flatten(), self.std.flatten()), strict=True
            )
        )
        return mean, std

    def set_constants(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Set the RGB input constants.

        Raises:
            TypeError, ValueError: if they are not three finite numbers each, std above 0.
        """
        exact = [[float(value) for value in values] for values in (mean, std)]
        if any(len(values) != 3 or not all(map(math.isfinite, values)) for values in exact):
            raise ValueError("mean and std have three finite numbers each")
        if min(exact[1]) <= 0:
            raise ValueError("std must be above 0")
        self._exact = exact
        for buffer, values in zip((self.mean, self.std), exact, strict=True):
            buffer.copy_(torch.tensor(values).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tokens:
        """Encode `[B, 3, H, W]` RGB float images in [0, 1] into `Tokens`.

        Raises:
            InputError: if H or W is not a multiple of `patch_size`.
        """
        check_resolution(self, images.shape[-2])
        check_resolution(self, images.shape[-1])
        return self.tokens((images - self.mean) / self.std)

    def tokens(self, pixels: Tensor) -> Tokens:
        """Encode normalized pixels; subclasses implement it."""
        raise NotImplementedError


@contextmanager
def evaluating(encoder: Network) -> Iterator[Network]:
    """Put a network in eval mode inside the block. Each module's mode is restored after it.

    In training mode batch norm would mix the images of a batch and update its statistics.
    """
    modes = [(module, module.training) for module in encoder.modules()]
    encoder.eval()
    try:
        yield encoder
    finally:
        for module, training in modes:
            module.training = training


def check_resolution(encoder: Encoder, resolution: int) -> None:
    """Raise `InputError` unless `resolution` pixels can be divided into the encoder's patches."""
    if resolution <= 0 or resolution % encoder.patch_size:
        below = max(resolution // encoder.patch_size, 1) * encoder.patch_size
        above = (resolution // encoder.patch_size + 1) * encoder.patch_size
        choice = f"{below}" if below == above else f"{below} or {above}"
        raise InputError(
            f"resolution {resolution} does not fit {encoder.name}, whose patch size is "
            f"{encoder.patch_size}: use {choice}"
        )
