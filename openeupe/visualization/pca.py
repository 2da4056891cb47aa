"""Exact, reproducible principal components of patch tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Pca:
    """Principal axes of a set of tokens.

    mean: `[D]`. axes: `[k, D]`, unit vectors. deviations: `[k]`, standard deviation along each.
    explained: `[k]`, each component's share of the variance. Where the tokens have fewer than `k`
    directions the rest are zeros.
    """

    mean: Tensor
    axes: Tensor
    deviations: Tensor
    explained: Tensor

    def scores(self, patches: Tensor) -> Tensor:
        """Tokens `[D, h, w]` -> float32 `[k, h, w]`, each component of unit variance where fitted.

        Whitened, so that a rotation between components mixes like with like.
        """
        rows = (patches.flatten(1).T.double() - self.mean) @ self.axes.T
        scale = torch.where(self.deviations > 0, self.deviations, torch.inf)
        return (rows / scale).T.unflatten(1, patches.shape[-2:]).float()


def fit_pca(tokens: Sequence[Tensor], count: int = 8, masks: Sequence[Tensor] | None = None) -> Pca:
    """Fit a PCA to tokens of an image, batch or reference set.

    In float64 and by a full decomposition, with a sign rule (the largest loading of an axis is
    positive): the same tokens give the same axes.

    Args:
        tokens: `[D, h, w]` of each image; grids may differ.
        masks: bool `[h, w]` of each image: which tokens count. None: all.
    """
    rows = torch.cat(
        [
            t.flatten(1).T if masks is None else t.flatten(1).T[masks[i].flatten()]
            for i, t in enumerate(tokens)
        ]
    ).double()
    mean = rows.mean(dim=0)
    rows = rows - mean
    count_here = min(count, *rows.shape)
    # Through the smaller of both Gram matrices: the singular vectors, several times faster.
    wide = len(rows) < rows.shape[1]
    values, vectors = torch.linalg.eigh(rows @ rows.T if wide else rows.T @ rows)
    total = values.clamp_min(0).sum().clamp_min(1e-300)
    values = values.flip(0)[:count_here].clamp_min(0)
    vectors = vectors.flip(1)[:, :count_here]
    axes = torch.nn.functional.normalize(rows.T @ vectors, dim=0).T if wide else vectors.T
    real = values > total * 1e-12
    largest = axes.gather(1, axes.abs().argmax(dim=1, keepdim=True))
    axes = axes * torch.where(largest < 0, -1.0, 1.0) * real[:, None]
    deviations = (values * real / len(rows)).sqrt()
    lacking = count - count_here
    return Pca(
        mean,
        torch.nn.functional.pad(axes, (0, 0, 0, lacking)),
        torch.nn.functional.pad(deviations, (0, lacking)),
        torch.nn.functional.pad(values * real / total, (0, lacking)),
    )


def foreground(patches: Tensor) -> Tensor:
    """Bool `[h, w]`: the side of the first component's mean that touches the border less.

    The first component often separates object and background; its sign is arbitrary.
    """
    first = fit_pca([patches], 1).scores(patches)[0]
    edge = torch.ones_like(first, dtype=torch.bool)
    edge[1:-1, 1:-1] = False
    above = first > 0
    if bool(above[edge].float().mean() > above.float().mean()):
        above = ~above
    return above if bool(above.any()) else torch.ones_like(above)


def coherence(patches: Tensor) -> float:
    """Spatial coherence of tokens `[D, h, w]`: Moran's I over neighbouring patches.

    The mean inner product of centred tokens side by side and above one another, over their mean
    squared length: about 0 for noise, 1 for a map that hardly changes from patch to patch. It
    compares encoders of one patch size on one image; an encoder that upsamples its tokens is
    smooth by construction.
    """
    centred = patches.double() - patches.double().mean(dim=(1, 2), keepdim=True)
    across = (centred[:, :, 1:] * centred[:, :, :-1]).sum(0)
    down = (centred[:, 1:] * centred[:, :-1]).sum(0)
    pairs = torch.cat([across.flatten(), down.flatten()])
    return float(pairs.mean() / centred.square().sum(0).mean().clamp_min(1e-300))
