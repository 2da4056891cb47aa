"""Settings of the pictures of what encoders see."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from openeupe.config import Config
from openeupe.errors import InputError
from openeupe.limits import IMAGES, RESOLUTION
from openeupe.visualization.colours import Range
from openeupe.visualization.pictures import chosen_kinds

_Share = Annotated[float, Field(ge=0, le=1)]


def _kinds(value: Any) -> Any:
    return chosen_kinds(value) if isinstance(value, str) else value


def _place(value: Any) -> Any:
    """(x, y) from `0.25,0.6`."""
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"\s*([\d.]+)\s*,\s*([\d.]+)\s*", value)
    try:
        x, y = (float(part) for part in found.groups()) if found else (2.0, 2.0)
    except ValueError:
        x, y = 2.0, 2.0
    if not (0 <= x <= 1 and 0 <= y <= 1):
        raise InputError(f"patch {value}: give X,Y between 0 and 1, as in 0.25,0.6")
    return x, y


class LookConfig(Config):
    """Which pictures are drawn, and how tokens become colours."""

    only: Annotated[tuple[str, ...], BeforeValidator(_kinds)] | None = Field(
        None, description="some of pca, components, norms, similarity, matches, stages  [all]"
    )
    resolution: int = Field(
        512, ge=32, le=RESOLUTION, description="pixels of the images' long side"
    )
    limit: int = Field(8, ge=1, le=IMAGES, description="images at most")
    axes: str = Field("image", description="from each `image`, from the `batch`, or a folder")
    mask: str = Field("none", description="`none`, `first` component, or a picture: white is kept")
    range: Range = Field("minmax", description="of the colours: minmax, robust or whiten")
    align: bool = Field(True, description="turn the colours towards the first encoder's")
    patch: Annotated[tuple[_Share, _Share], BeforeValidator(_place)] = Field(
        (0.5, 0.5), description="patch to compare with, in shares of the first image's sides"
    )
    components: int = Field(8, ge=1, le=8, description="single components shown")
    upsampling: Literal["nearest", "bilinear", "bicubic"] = Field(
        "nearest", description="of patches to pixels"
    )
