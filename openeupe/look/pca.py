"""PCA pictures of patch tokens: the first three components as red, green and blue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor


def pca_rgb(patches: Tensor) -> Tensor:
    """`[D, h, w]` patch tokens of one image -> `[h, w, 3]` float colours in [0, 1].

    Exact, with a sign rule (the largest loading of a component is positive), so that the same
    tokens always give the same picture; each component is stretched from minimum to maximum.
    """
    rows = patches.flatten(1).T.double()
    rows = rows - rows.mean(dim=0)
    # The eigenvectors of the smaller of both Gram matrices: several times faster than an SVD.
    if len(rows) < rows.shape[1]:
        _, vectors = torch.linalg.eigh(rows @ rows.T)
        components = torch.nn.functional.normalize(rows.T @ vectors[:, -3:], dim=0)
    else:
        _, vectors = torch.linalg.eigh(rows.T @ rows)
        components = vectors[:, -3:]
    components = components.flip(1).T
    largest = components.gather(1, components.abs().argmax(dim=1, keepdim=True))
    scores = rows @ (components * largest.sign()).T
    low, high = scores.amin(dim=0), scores.amax(dim=0)
    colours = (scores - low) / (high - low).clamp_min(1e-12)
    if colours.shape[1] < 3:  # an image of fewer than three distinct tokens
        colours = torch.nn.functional.pad(colours, (0, 3 - colours.shape[1]))
    return colours.unflatten(0, patches.shape[-2:]).float()


def save_pca_grid(
    path: Path, photos: Sequence[Tensor], columns: Mapping[str, Sequence[Tensor]]
) -> None:
    """A PNG with a row per photo: the photo, then each encoder's PCA colours.

    Args:
        photos: uint8 images `[3, H, W]`.
        columns: title -> patch tokens `[D, h, w]` of each photo. Upsampling is nearest.
    """
    # Drawn without pyplot: no global state, no display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    count = 1 + len(columns)
    figure = Figure(figsize=(1.9 * count, 2.0 * len(photos) + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(photos), count, squeeze=False)
    for row, photo in enumerate(photos):
        axes[row, 0].imshow(photo.permute(1, 2, 0).numpy())
        for column, tokens in enumerate(columns.values(), start=1):
            axes[row, column].imshow(pca_rgb(tokens[row]).numpy(), interpolation="nearest")
    for axis, title in zip(axes[0], ["photo", *columns], strict=True):
        axis.set_title(title, fontsize=10)
    for axis in axes.flat:
        axis.set_axis_off()
    figure.suptitle(
        "First three principal components of the patch tokens as red, green, blue; per photo, "
        "min-max, nearest upsampling",
        fontsize=8,
    )
    figure.savefig(path, dpi=110)
