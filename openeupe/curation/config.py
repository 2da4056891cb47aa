"""Settings of a curation."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from openeupe.config import Config
from openeupe.limits import IMAGE_WEIGHT, IMAGES, RESOLUTION, SEED, WIDTH, WORKERS

_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9}


def _bytes(size: object) -> int:
    """Bytes of `500MB`."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(KB|MB|GB)", str(size).strip().upper())
    if found is None or float(found[1]) <= 0:
        raise ValueError(f"{size!r}: write it as 500MB or 1GB")
    return int(float(found[1]) * _UNITS[found[2]])


Levels = Annotated[
    list[Annotated[int, Field(ge=1, le=IMAGES)]],
    BeforeValidator(lambda v: [v] if isinstance(v, int) else v),
]
Cosine = Annotated[float, Field(gt=0, le=1)]


class CurateConfig(Config):
    """Settings of a curation, saved in the manifest."""

    seed: int = Field(
        default=0, ge=0, le=SEED, description="Of k-means and of the balanced choice."
    )
    min_resolution: int = Field(
        default=64, ge=1, le=RESOLUTION, description="Shorter images, in pixels, are dropped."
    )
    max_aspect: float = Field(
        default=5.0,
        ge=1,
        le=WIDTH,
        description="Images with a larger long side / short side are dropped.",
    )
    hash_distance: int | None = Field(
        default=None,
        ge=0,
        le=64,
        description="Bits of the perceptual hash (of 64) by which copies may differ.  [18 with an "
        "encoder; 10 without; 6 if edges need not agree either]",
    )
    similarity: Cosine = Field(
        default=0.85,
        description="Cosine of the embeddings that copies have at least, unless their hashes are "
        "near enough without an encoder.",
    )
    leak_similarity: Cosine = Field(
        default=0.8,
        description="The same for evaluation images: lower, since a missed leak costs more than an "
        "image lost.",
    )
    agreement: float = Field(
        default=0.92,
        ge=0,
        le=1,
        description="Correlation of the edges of copies after alignment; 0: edges are "
        "not compared.",
    )
    leak_agreement: float = Field(
        default=0.8,
        ge=0,
        le=1,
        description="The same for evaluation images, and lower for the same reason; 0: what hash "
        "(and encoder) find near is a leak.",
    )
    mirrored: bool = Field(
        default=True,
        description="Whether a mirrored image is a copy (training mirrors at random); one turned "
        "by 90, 180 or 270 degrees always is.",
    )
    resolution: int | None = Field(
        default=None,
        ge=16,
        le=RESOLUTION,
        description="Pixels the encoder sees.  [its own resolution]",
    )
    like_each: int = Field(
        default=16, ge=1, le=IMAGES, description="Images fetched for each image of the seed set."
    )
    balance: Literal["clusters", "neighbours"] = Field(
        default="clusters",
        description="Clusters get the same share; or an image is drawn the less often the more "
        "others are like it.",
    )
    near: Cosine = Field(
        default=0.2, description="Cosine of centred embeddings of similar neighbours."
    )
    clusters: Levels | None = Field(
        default=None,
        max_length=16,
        description="Clusters of each level, the finest first.  [an eighth of the images, at "
        "most 4096; then a quarter of the level before, down to 256]",
    )
    resampling: int = Field(
        default=1,
        ge=0,
        le=WIDTH,
        description="Rounds of resampled k-means at each level (Vo et al. 2024).",
    )
    size: int | None = Field(
        default=None, ge=1, le=IMAGES, description="Images to keep after balancing.  [all]"
    )
    max_weight: float = Field(
        default=8.0,
        ge=1,
        le=IMAGE_WEIGHT,
        description="Maximum sampling weight relative to the average image.",
    )
    workers: int = Field(default=2, ge=1, le=WORKERS, description="Threads that read and decode.")
    work: str | None = Field(
        default=None,
        description="Folder that caches scans and embeddings, for other settings too.  [OUT.work]",
    )
    shards: Annotated[int, BeforeValidator(_bytes)] | None = Field(
        default=None,
        description="Also copy the remaining images to tar shards of at most this size: 500MB.",
    )
