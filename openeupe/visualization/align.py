"""Align one encoder's PCA colours with another's."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def rotation(scores: Sequence[Tensor], reference: Sequence[Tensor]) -> Tensor:
    """Orthogonal `[k, k]` that maps `scores` nearest to `reference` (Procrustes).

    A rotation, with a reflection where that fits better, since the sign of a component is a
    convention. It changes no distance between colours before they are stretched to [0, 1].

    Args:
        scores, reference: whitened components `[k, h, w]` of the same images; grids may differ.
    """
    product = torch.zeros(len(scores[0]), len(reference[0]), dtype=torch.float64)
    for here, there in zip(scores, reference, strict=True):
        product += _on_grid(here, there.shape[-2:]).flatten(1) @ there.double().flatten(1).T
    left, _, right = torch.linalg.svd(product)
    return (left @ right).T


def rotated(scores: Tensor, turn: Tensor) -> Tensor:
    """Components `[k, h, w]` turned by `rotation`."""
    return torch.einsum("ij,jhw->ihw", turn, scores.double()).float()


def _on_grid(scores: Tensor, size: torch.Size) -> Tensor:
    if scores.shape[-2:] == size:
        return scores.double()
    return F.interpolate(
        scores[None].double(), size=size, mode="bilinear", align_corners=False, antialias=True
    )[0]
