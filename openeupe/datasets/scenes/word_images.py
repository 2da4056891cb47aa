"""Photos with words and distractor patterns, and masks of the words."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from openeupe.datasets.interfaces import Images
from openeupe.datasets.scenes.lettering import FONTS, WORDS, Quad, cased, lettered, quad, warped
from openeupe.identity import facts_identity
from openeupe.seeds import derive_seed

VERSION = 1  # to be raised whenever any picture or mask changes
LEAST_LETTERS_PX = 10


class WordPhotos:
    """Photos with words laid over them, for text-region segmentation: a `MaskedImages`.

    About one photo in seven has no word, the others have one to four: common words, random
    letters and numbers in fourteen fonts, from 10 pixels to a quarter of the photo high, turned,
    in perspective, blurred, half transparent, on plates or straight on the photo, with down to 25
    gray levels of contrast. There are as many patterns that are not text (hatchings, grids,
    scribbles, rows of signs) of the same sizes, strokes, colours and warps, so that fine detail
    alone is no sign of a word. Text that a photo itself shows is labelled background.

    Args:
        photos: the backgrounds; photo `index % len(photos)` for image `index`.
        count: number of images; None: one of each photo.
        seed: which words, and where.
        size: (height, width) to which photos are scaled and centrally cropped; None: their own.

    Attributes:
        classes: "background" and "text".

    Raises:
        ValueError: if count is below 1, there is no photo, or a side of `size` is below 64.
    """

    def __init__(
        self,
        photos: Images,
        *,
        count: int | None = None,
        seed: int = 0,
        size: tuple[int, int] | None = None,
    ) -> None:
        self.count = len(photos) if count is None else count
        if self.count < 1 or len(photos) < 1:
            raise ValueError("words need at least one photo and a count of at least 1")
        if size is not None and min(size) < 64:
            raise ValueError("words need photos of at least 64 pixels a side")
        self.photos, self.seed, self.size = photos, seed, size
        self.classes = ["background", "text"]
        self._last: tuple[int, NDArray[np.uint8], NDArray[np.uint8]] | None = None

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        """The photo's name and the image's number."""
        return f"{self.photos.name(index % len(self.photos))}#words-{index:05d}"

    @property
    def fingerprint(self) -> str:
        """Identity of the photos, the generator's version and all settings."""
        return facts_identity(VERSION, self.photos.fingerprint, self.count, self.seed, self.size)

    @property
    def identity(self) -> str:
        """The same: the masks follow from it, too."""
        return self.fingerprint

    def read(self, index: int) -> Image.Image:
        """RGB image `index`. Raises `BrokenImage` if its photo is broken."""
        return Image.fromarray(self._made(index)[0])

    def mask(self, index: int) -> NDArray[np.uint8]:
        """`[H, W]` uint8: 1 inside a word's outline (a quadrangle, filled), else 0."""
        return self._made(index)[1].copy()

    def _made(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        if not 0 <= index < self.count:
            raise IndexError(index)
        last = self._last  # another thread may replace it at any time
        if last is None or last[0] != index:
            photo = _fitted(self.photos.read(index % len(self.photos)), self.size)
            rng = np.random.default_rng(derive_seed(self.seed, "words", index))
            self._last = last = (index, *written(photo, rng))
        return last[1], last[2]


@dataclass(frozen=True)
class _Label:
    """A word or a pattern. stencil: white on black. corners, plate: in pixels of the photo."""

    stencil: Image.Image
    corners: Quad
    plate: Quad | None
    is_text: bool

    def box(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Pixels (x0, y0, x1, y1) around corners and plate that are in the photo."""
        every = self.corners if self.plate is None else self.plate
        (x0, y0), (x1, y1) = every.min(axis=0) - 2, every.max(axis=0) + 3
        return max(int(x0), 0), max(int(y0), 0), min(int(x1), width), min(int(y1), height)


def written(
    photo: Image.Image, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """`photo` `[H, W, 3]` uint8 with words and patterns, and its mask `[H, W]` uint8."""
    labels = _labels(rng, *photo.size)
    canvas = np.asarray(photo, np.float32).copy()
    mask = Image.new("L", photo.size)
    for label in labels:
        _lay(canvas, label, rng)
        if label.is_text:
            ImageDraw.Draw(mask).polygon(label.corners.ravel().tolist(), fill=1, outline=1)
    return np.clip(canvas + 0.5, 0, 255).astype(np.uint8), np.asarray(mask, np.uint8)


def _labels(rng: np.random.Generator, width: int, height: int) -> list[_Label]:
    """Words and patterns whose boxes do not overlap."""
    words = 0 if rng.random() < 0.15 else int(rng.integers(1, 5))
    patterns = int(rng.integers(0 if words else 1, 5))
    labels: list[_Label] = []
    for is_text in [True] * words + [False] * patterns:
        for _ in range(20):
            label = _label(rng, width, height, is_text)
            x0, y0, x1, y1 = label.box(width, height)
            others = [other.box(width, height) for other in labels]
            if not any(x0 < u1 and u0 < x1 and y0 < v1 and v0 < y1 for u0, v0, u1, v1 in others):
                labels.append(label)
                break
    return labels


def _label(rng: np.random.Generator, width: int, height: int, is_text: bool) -> _Label:
    """Something of random size and warp that is wholly inside the photo."""
    low, high = np.log(LEAST_LETTERS_PX), np.log(max(0.25 * min(width, height), 12))
    size = float(np.exp(rng.uniform(low, high)))
    if is_text:
        stencil = lettered(_text(rng), FONTS[rng.integers(len(FONTS))], max(12, int(2 * size)))
    else:
        stencil = _pattern(rng, int(2 * size * rng.uniform(1.2, 6)), int(2 * size))
    aspect = stencil.width / stencil.height * float(np.exp(rng.uniform(-0.15, 0.25)))
    turn = rng.normal(0, 0.18) if rng.random() < 0.8 else rng.uniform(-np.pi / 2, np.pi / 2)
    lean = rng.uniform(-0.2, 0.2, (4, 2))
    corners = quad(size * aspect, size, float(turn), lean)
    half = np.array([width, height]) / 2
    fit = min(1.0, *(half / (np.abs(corners).max(axis=0) + 2)))
    corners = corners * fit
    reach = np.minimum(np.abs(corners).max(axis=0) + 2, half)
    centre = rng.uniform(reach, 2 * half - reach)
    plate = None
    if rng.random() < 0.35:
        padding = rng.uniform(0.2, 1) * size
        plate = centre + fit * quad(size * aspect + padding, size + padding, float(turn), lean)
    return _Label(stencil, corners + centre, plate, is_text)


def _lay(canvas: NDArray[np.float32], label: _Label, rng: np.random.Generator) -> None:
    """Print a label over the canvas: plate, ink, opacity and blur do not depend on what it is."""
    tall = float(np.linalg.norm(label.corners[3] - label.corners[0]))
    height, width = canvas.shape[:2]
    x0, y0, x1, y1 = label.box(width, height)
    area = canvas[y0:y1, x0:x1]
    frame = (x1 - x0, y1 - y0)
    stencil = warped(label.stencil, label.corners - (x0, y0), frame)
    if rng.random() < 0.35:
        stencil = stencil.filter(ImageFilter.GaussianBlur(rng.uniform(0.02, 0.06) * tall))
    if label.plate is not None:
        cover = Image.new("L", frame)
        ImageDraw.Draw(cover).polygon((label.plate - (x0, y0)).ravel().tolist(), fill=255)
        share = np.asarray(cover, np.float32)[..., None] / 255 * rng.uniform(0.5, 1)
        area += share * (rng.uniform(0, 255, 3).astype(np.float32) - area)
    alpha = np.asarray(stencil, np.float32)[..., None] / 255
    under = area.reshape(-1, 3).mean(axis=0)
    area += alpha * np.float32(rng.uniform(0.55, 1)) * (_ink(under, rng) - area)


def _ink(under: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """A colour that differs from `under` by 45 to 255 gray levels, as far as there is room."""
    gray = float(under.mean())
    contrast = float(np.exp(rng.uniform(np.log(45), np.log(255))))
    lighter = rng.random() < (255 - gray) / 255
    colour = rng.uniform(0, 255, 3)
    colour += gray + (contrast if lighter else -contrast) - colour.mean()
    return np.clip(colour, 0, 255).astype(np.float32)


def _text(rng: np.random.Generator) -> str:
    kind = rng.random()
    if kind < 0.6:
        return cased(WORDS[rng.integers(len(WORDS))], rng)
    if kind < 0.85:
        letters = rng.integers(0, 26, int(rng.integers(2, 9)))
        return cased("".join(chr(ord("a") + int(k)) for k in letters), rng)
    digits = "".join(str(k) for k in rng.integers(0, 10, int(rng.integers(2, 6))))
    place = int(rng.integers(1, len(digits)))
    return digits[:place] + ("", ".", "-", ":")[rng.integers(4)] + digits[place:]


def _pattern(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Strokes as wide and as close as those of letters of this height, in no writing."""
    image = Image.new("L", (width, height))
    draw = ImageDraw.Draw(image)
    stroke = max(2, round(height * rng.uniform(0.06, 0.2)))
    pitch = stroke * rng.uniform(1.8, 3.5)
    kind = rng.integers(6)
    if kind in (0, 1):  # hatching, or a grid of two
        slope = rng.uniform(-0.8, 0.8) * height
        for x in np.arange(-height, width + height, pitch):
            draw.line((x, 0, x + slope, height), fill=255, width=stroke)
        if kind == 1:
            for y in np.arange(stroke / 2, height, pitch):
                draw.line((0, y, width, y), fill=255, width=stroke)
    elif kind == 2:  # checkers
        for row in range(int(height / stroke) + 1):
            for column in range(row % 2, int(width / stroke) + 1, 2):
                x, y = column * stroke, row * stroke
                draw.rectangle((x, y, x + stroke - 1, y + stroke - 1), fill=255)
    elif kind == 3:  # a scribble: a smooth curve through random points
        count = max(4, int(3 * width / height))
        knots = np.stack((np.linspace(0, width, count), rng.uniform(0, height, count)), axis=1)
        knots[:, 0] += rng.uniform(-0.4, 0.4, count) * height
        fine = np.linspace(0, count - 1, 12 * count)
        curve = [np.interp(fine, np.arange(count), knots[:, k]) for k in (0, 1)]
        kernel = np.hanning(13) / np.hanning(13).sum()
        smooth = [np.convolve(np.pad(c, 6, mode="edge"), kernel, mode="valid") for c in curve]
        draw.line(np.stack(smooth, axis=1).ravel().tolist(), fill=255, width=stroke, joint="curve")
    elif kind == 4:  # a zigzag
        points = [(x, (k % 2) * height) for k, x in enumerate(np.arange(0, width, pitch))]
        draw.line([*points, (width, height // 2)], fill=255, width=stroke)
    else:  # a row of signs
        for x in np.arange(0, width - height * 0.6, height * rng.uniform(0.7, 1)):
            _sign(draw, rng, float(x), height, stroke)
    return image.crop(image.getbbox() or (0, 0, width, height))


def _sign(
    draw: ImageDraw.ImageDraw, rng: np.random.Generator, x: float, height: int, stroke: int
) -> None:
    wide = height * rng.uniform(0.45, 0.65)
    top = height * rng.choice([0.0, 0.0, 0.3])
    box = (x, top, x + wide, height - 1)
    match rng.integers(5):
        case 0:
            draw.rectangle(box, outline=255, width=stroke)
        case 1:
            draw.polygon([(x, height), (x + wide / 2, top), (x + wide, height)], fill=255)
        case 2:
            draw.rounded_rectangle(box, radius=stroke, fill=255)
        case 3:
            draw.line((x, height / 2, x + wide, height / 2), fill=255, width=stroke)
        case _:
            middle = (x + wide / 2, top, x + wide / 2, height)
            draw.line(middle, fill=255, width=stroke)
            draw.line((x, height / 2, x + wide, height / 2), fill=255, width=stroke)


def _fitted(photo: Image.Image, size: tuple[int, int] | None) -> Image.Image:
    """Scaled to cover (height, width) and cut to its middle."""
    if size is None:
        return photo
    height, width = size
    scale = max(height / photo.height, width / photo.width)
    wide, high = max(width, round(photo.width * scale)), max(height, round(photo.height * scale))
    photo = photo.resize((wide, high), Image.Resampling.BICUBIC)
    left, top = (wide - width) // 2, (high - height) // 2
    return photo.crop((left, top, left + width, top + height))
