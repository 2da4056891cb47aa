"""Frozen tokens of a set of images, for every evaluation that trains nothing on the encoder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from openeupe.data import BrokenImage, Source, center_view, resize
from openeupe.encoders import Encoder, Tokens


@contextmanager
def frozen(encoder: Encoder) -> Iterator[Encoder]:
    """The encoder in eval mode without gradients; its mode comes back afterwards."""
    training = encoder.training
    encoder.eval()
    try:
        with torch.no_grad():
            yield encoder
    finally:
        encoder.train(training)


def center_views(source: Source, indices: Sequence[int], side: int) -> tuple[Tensor, list[int]]:
    """uint8 views `[N, 3, side, side]` of the readable images among `indices`, and which these are.

    Short side resized to `side`, centre kept.
    """
    views, kept = [], []
    for index in indices:
        try:
            views.append(center_view(source.read(index), side))
            kept.append(index)
        except BrokenImage:
            continue
    return torch.stack(views) if views else torch.empty(0, 3, side, side, dtype=torch.uint8), kept


def encode(
    encoder: Encoder, views: Tensor, side: int | None = None, batch_size: int = 32
) -> Tokens:
    """Float32 CPU tokens of uint8 views `[N, 3, S, S]`, shown at `side` pixels (default: S)."""
    device = encoder.mean.device
    cls, patches = [], []
    with frozen(encoder):
        for chunk in views.split(batch_size):
            tokens = encoder(resize(chunk.to(device), side or views.shape[-1]))
            cls.append(tokens.cls.float().cpu())
            patches.append(tokens.patches.float().cpu())
    return Tokens(torch.cat(cls), torch.cat(patches))
