"""Photos and patch tokens, small enough to travel inside a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

RANK = 32  # numbers a patch: see `Compact.error`


@dataclass(frozen=True)
class Compact:
    """Tokens of one encoder from which a page computes cosine similarities.

    grids: (rows, columns) of each photo. data: each photo's int8 `[patches, rank]`, row by row.
    scales: what one step of each of the `rank` numbers is worth.
    error: the 95th percentile of |cosine - exact cosine| over pairs of patches.
    """

    grids: list[tuple[int, int]]
    data: list[bytes]
    scales: list[float]
    error: float

    def for_page(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "grids": self.grids,
            "data": [base64.b64encode(part).decode() for part in self.data],
            "scales": [float(f"{scale:.6g}") for scale in self.scales],
        }


def compact(images: Sequence[Tensor], rank: int = RANK) -> Compact:
    """Patch tokens `[D, h, w]` of several photos by one encoder, for cosine similarities alone.

    Tokens are brought to unit length and projected onto their first `rank` singular vectors, not
    centred: of all projections the one that keeps the cosines best. Then eight bits a number.
    """
    rows = torch.cat([F.normalize(t.flatten(1), dim=0).T for t in images]).double()
    _, vectors = torch.linalg.eigh(rows.T @ rows)
    rank = min(rank, rows.shape[1])
    values = rows @ vectors.flip(1)[:, :rank]
    scales = values.abs().amax(dim=0).clamp_min(1e-12) / 127
    steps = (values / scales).round().to(torch.int8)

    generator = torch.Generator().manual_seed(0)
    first, second = torch.randint(len(rows), (2, 4096), generator=generator)
    back = F.normalize(steps.double() * scales, dim=1)
    exact = (rows[first] * rows[second]).sum(1)
    error = (exact - (back[first] * back[second]).sum(1)).abs().quantile(0.95)

    grids = [(int(t.shape[1]), int(t.shape[2])) for t in images]
    parts = steps.split([h * w for h, w in grids])
    return Compact(grids, [p.numpy().tobytes() for p in parts], scales.tolist(), float(error))


def photo_uri(image: Image.Image, side: int) -> str:
    """A JPEG of a photo as a data URI, its long side at most `side` pixels."""
    small = image.copy()
    small.thumbnail((side, side), Image.Resampling.BICUBIC)
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=82)
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
