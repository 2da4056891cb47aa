"""Principal components of tokens as red, green and blue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from openeupe.visualization.align import rotated, rotation
from openeupe.visualization.pca import Pca, coherence, fit_pca, foreground

Axes = Literal["image", "batch", "reference"]
Mask = Literal["none", "first"] | Sequence[Tensor]
Range = Literal["minmax", "robust", "whiten"]
_MASKED = 0.93  # light grey


@dataclass(frozen=True)
class Colouring:
    """How tokens become colours.

    axes: fitted to each image separately, to all images together, or to a reference set.
    range: "minmax"; "robust", the median ± 3 scaled MAD, so that outliers take no colour; or
        "whiten", unit variance through `sigmoid(2 x)`, as in DINOv3's notebooks.
    mask: "none", "first" (`foreground`), or bool masks `[H, W]` of each image: only these tokens
        are used for the axes and coloured.
    align: align every encoder's colours with the first one's.
    """

    axes: Axes = "image"
    range: Range = "minmax"
    mask: Mask = "none"
    align: bool = True

    def caption(self, reference: str | None = None) -> str:
        """Caption of the colours. reference: the first of several encoders."""
        fits = {
            "image": "each image separately",
            "batch": "all images",
            "reference": "other images",
        }
        ranges = {
            "minmax": "from minimum to maximum",
            "robust": "median ± 3 MAD",
            "whiten": "whitened, sigmoid",
        }
        parts = [f"axes from {fits[self.axes]}", f"range {ranges[self.range]}"]
        if self.mask != "none":
            parts.append("foreground by 1st component" if self.mask == "first" else "masked")
        if self.align and reference:
            parts.append(f"colours aligned orthogonally with {reference}")
        return "First three principal components as red, green, blue: " + "; ".join(parts)


@dataclass(frozen=True)
class Coloured:
    """rgb: float `[h, w, 3]` in [0, 1]. explained: `[8]` shares of variance, of the components
    before any rotation. coherence: Moran's I of the tokens. components: `[8, h, w]`, unrotated;
    nan where masked.
    """

    rgb: Tensor
    explained: Tensor
    coherence: float
    components: Tensor


def colour(
    tokens: Mapping[str, Sequence[Tensor]],
    how: Colouring | None = None,
    reference: Mapping[str, Sequence[Tensor]] | None = None,
) -> dict[str, list[Coloured]]:
    """Colour the patch tokens `[D, h, w]` of each encoder and image.

    Args:
        tokens: encoder -> tokens of each image, the same images for each.
        reference: with `how.axes == "reference"`, tokens of the reference set by encoder.
    """
    how = how or Colouring()
    result: dict[str, list[Coloured]] = {}
    towards: list[Tensor] = []
    for name, images in tokens.items():
        masks = _masks(images, how)
        axes = _axes(images, masks, how, (reference or {}).get(name))
        components = [p.scores(t) for p, t in zip(axes, images, strict=True)]
        scores = [c[:3] for c in components]
        if how.align:
            if towards:
                scores = _turned(scores, towards, each=how.axes == "image")
            else:
                towards = scores
        colours = _stretched(scores, masks, how.range, each=how.axes == "image")
        result[name] = [
            Coloured(
                torch.where(mask[..., None], rgb, _MASKED),
                pca.explained,
                coherence(image),
                torch.where(mask, maps, torch.nan),
            )
            for rgb, mask, pca, image, maps in zip(
                colours, masks, axes, images, components, strict=True
            )
        ]
    return result


def _masks(images: Sequence[Tensor], how: Colouring) -> list[Tensor]:
    if how.mask == "none":
        return [torch.ones(t.shape[-2:], dtype=torch.bool) for t in images]
    if how.mask == "first":
        return [foreground(t) for t in images]
    masks = []
    for mask, image in zip(how.mask, images, strict=True):
        share = F.interpolate(mask[None, None].float(), size=image.shape[-2:], mode="area")[0, 0]
        kept = share >= 0.5
        masks.append(kept if bool(kept.any()) else share >= share.max())
    return masks


def _axes(
    images: Sequence[Tensor],
    masks: Sequence[Tensor],
    how: Colouring,
    reference: Sequence[Tensor] | None,
) -> list[Pca]:
    if how.axes == "image":
        return [fit_pca([t], masks=[m]) for t, m in zip(images, masks, strict=True)]
    if how.axes == "reference":
        if not reference:
            raise ValueError("axes 'reference' needs the reference set's tokens")
        return [fit_pca(reference)] * len(images)
    return [fit_pca(images, masks=masks)] * len(images)


def _turned(scores: Sequence[Tensor], towards: Sequence[Tensor], each: bool) -> list[Tensor]:
    if each:
        return [rotated(s, rotation([s], [t])) for s, t in zip(scores, towards, strict=True)]
    turn = rotation(scores, towards)
    return [rotated(s, turn) for s in scores]


def _stretched(
    scores: Sequence[Tensor], masks: Sequence[Tensor], span: Range, each: bool
) -> list[Tensor]:
    """`[3, h, w]` -> `[h, w, 3]` in [0, 1]; the range is that of the unmasked tokens."""
    counted = [s[:, m] for s, m in zip(scores, masks, strict=True)]
    if not each:
        counted = [torch.cat(counted, dim=1)] * len(scores)
    colours = []
    for values, among in zip(scores, counted, strict=True):
        if span == "whiten":
            colours.append(torch.sigmoid(2 * values).permute(1, 2, 0))
            continue
        if span == "minmax":
            low, high = among.amin(dim=1), among.amax(dim=1)
        else:
            middle = among.median(dim=1).values
            reach = 3 * 1.4826 * (among - middle[:, None]).abs().median(dim=1).values
            low, high = middle - reach, middle + reach
        stretched = (values.permute(1, 2, 0) - low) / (high - low).clamp_min(1e-12)
        colours.append(stretched.clamp(0, 1))
    return colours
