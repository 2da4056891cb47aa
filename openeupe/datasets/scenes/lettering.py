"""Render words with bundled fonts, and warp them onto quadrangles."""

from __future__ import annotations

from functools import cache, lru_cache
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

# Common, short, and none of them the name of a shape or colour, nor "yes" or "no".
_COMMON = """
air apple arm bag ball bank bay bed bell bird boat book box bread bus cafe cake car cat city club
coat coffee cold cup day desk dog door east exit farm film fire flag food fruit garden gate gift
girl hall hand hat help home honey hotel ice island jam king lake lamp law lemon lion luck map milk
music new night north nurse ocean open park pay pen pet pier plan play pool pub push rain rest rice
road rock room salt sand school sea shop silver sky snow soap south stop sugar sun taxi tea time
town train vote walk wall war water way west wind wine wood work zoo
"""
WORDS = tuple(_COMMON.split())
# Aileron (inside Pillow) is "", the others are files of matplotlib.
FONTS = (
    "", "DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSans-Oblique.ttf",
    "DejaVuSans-BoldOblique.ttf", "DejaVuSerif.ttf", "DejaVuSerif-Bold.ttf",
    "DejaVuSerif-Italic.ttf", "DejaVuSerif-BoldItalic.ttf", "DejaVuSansMono.ttf",
    "DejaVuSansMono-Bold.ttf", "STIXGeneral.ttf", "STIXGeneralBolIta.ttf", "cmtt10.ttf",
)  # fmt: skip

Quad = NDArray[np.float64]  # [4, 2]: upper left, upper right, lower right, lower left


def lettered(text: str, font: str, size: int) -> Image.Image:
    """`text` in white on black, mode L, cut to its ink. `size` is the font's, in pixels."""
    face = _face(font, size)
    x0, y0, x1, y1 = (int(v) for v in face.getbbox(text))
    image = Image.new("L", (x1 - x0 + 4, y1 - y0 + 4))
    ImageDraw.Draw(image).text((2 - x0, 2 - y0), text, fill=255, font=face)
    return image.crop(image.getbbox())


def quad(width: float, height: float, turn: float, lean: NDArray[np.float64]) -> Quad:
    """Corners around (0, 0) of a rectangle turned by `turn` radians. `lean` `[4, 2]` moves each.

    lean: displacements in shares of `height`: perspective and shear.
    """
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * (width / 2, height / 2)
    corners = corners + lean * height
    cos, sin = np.cos(turn), np.sin(turn)
    return corners @ np.array([(cos, sin), (-sin, cos)])


def warped(image: Image.Image, corners: Quad, size: tuple[int, int]) -> Image.Image:
    """`image` with its corners moved to `corners`, on a canvas of `size` (width, height)."""
    width, height = image.size
    source = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float64)
    rows, wanted = [], []
    for (x, y), (u, v) in zip(corners, source, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        wanted += [u, v]
    coefficients = np.linalg.solve(np.array(rows), np.array(wanted))
    return image.transform(
        size,
        Image.Transform.PERSPECTIVE,
        tuple(float(c) for c in coefficients),
        Image.Resampling.BILINEAR,
    )


def cased(text: str, rng: np.random.Generator) -> str:
    """`text` as it is, Capitalized or in CAPITALS."""
    return (text, text.capitalize(), text.upper())[rng.integers(3)]


@lru_cache(maxsize=256)
def _face(font: str, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    if not font:
        return ImageFont.load_default(size)
    return ImageFont.truetype(_folder() / font, size)


@cache
def _folder() -> Path:
    return Path(matplotlib.get_data_path()) / "fonts" / "ttf"
