"""Compress images and patch tokens for a page."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

_RANKS = (16, 24, 32, 48, 64, 96)  # numbers a patch: the fewest that keep `_ERROR`
_ERROR = 0.05
_BYTES = 2_400_000  # of all tokens of a page, before base64: it stays under 5 MB


@dataclass(frozen=True)
class Compact:
    """Shortened tokens of one encoder that nearly keep their cosines. Cosines are plain inner
    products of them.

    grids: (rows, columns) of each image. data: each image's int8 `[patches, rank]`, row by row.
    scales: size of one step of each of the `rank` numbers.
    error: 95th percentile of |inner product - cosine|, over random and over neighbouring pairs.
    """

    grids: list[tuple[int, int]]
    data: list[bytes]
    scales: list[float]
    error: float

    def for_page(self) -> dict[str, object]:
        """As JSON."""
        return {
            "grids": self.grids,
            "data": [base64.b64encode(part).decode() for part in self.data],
            "scales": [float(f"{scale:.6g}") for scale in self.scales],
        }


def compact_all(tokens: Mapping[str, Sequence[Tensor]]) -> dict[str, Compact]:
    """Shorten the patch tokens `[D, h, w]` of several images by each encoder.

    Tokens are brought to unit length and projected onto their first singular vectors, not centred:
    of all projections the one that keeps the cosines best. Then eight bits a number.
    """
    patches = sum(t.shape[1] * t.shape[2] for images in tokens.values() for t in images)
    allowed = max(_RANKS[0], _BYTES // max(patches, 1))
    ranks = [rank for rank in _RANKS if rank <= allowed]
    return {name: _compact(images, ranks) for name, images in tokens.items()}


def _compact(images: Sequence[Tensor], ranks: Sequence[int]) -> Compact:
    rows = torch.cat([F.normalize(t.flatten(1), dim=0).T for t in images]).double()
    _, vectors = torch.linalg.eigh(rows.T @ rows)
    generator = torch.Generator().manual_seed(0)
    first = torch.randint(len(rows), (4096,), generator=generator)
    second = torch.randint(len(rows), (4096,), generator=generator)
    second[::2] = (first[::2] + 1) % len(rows)  # the next patch of the row, nearly always
    exact = (rows[first] * rows[second]).sum(1)
    best = (math.inf, torch.empty(0), torch.empty(0))
    for rank in ranks:
        cut = rows @ vectors.flip(1)[:, :rank]
        # Cut tokens hold unlike patches apart better, brought to unit length again like ones.
        for values in (cut, F.normalize(cut, dim=1)):
            scales = values.abs().amax(dim=0).clamp_min(1e-12) / 127
            steps = (values / scales).round().to(torch.int8)
            back = steps.double() * scales
            error = (exact - (back[first] * back[second]).sum(1)).abs().quantile(0.95)
            best = min(best, (float(error), steps, scales), key=lambda one: one[0])
        if best[0] <= _ERROR:
            break
    smallest, steps, scales = best
    grids = [(int(t.shape[1]), int(t.shape[2])) for t in images]
    parts = steps.split([h * w for h, w in grids])
    return Compact(grids, [p.numpy().tobytes() for p in parts], scales.tolist(), smallest)


def image_uri(image: Image.Image, resolution: int) -> str:
    """A JPEG of an image as a data URI. Its long side has at most `resolution` pixels."""
    small = image.copy()
    small.thumbnail((resolution, resolution), Image.Resampling.BICUBIC)
    return jpeg_uri(small)


def jpeg_uri(image: Image.Image) -> str:
    """An RGB image as a JPEG in a data URI."""
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=82)
    return _uri("image/jpeg", stream.getvalue())


def tile_uri(values: Tensor) -> str:
    """A PNG with a pixel a patch: `[h, w, 3]` colours, or `[h, w]` from minimum to maximum."""
    if values.ndim == 2:
        low, high = values.min(), values.max()
        values = (values - low) / (high - low).clamp_min(1e-12)
    pixels = (values.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(stream, "PNG", optimize=True)
    return _uri("image/png", stream.getvalue())


def svg_uri(svg: str) -> str:
    """An SVG as a data URI: as an image of its own, so that ids of several do not clash."""
    return _uri("image/svg+xml", svg.encode())


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
