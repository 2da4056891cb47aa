"""Training crops of images with labels.

The rules are those of the paper's released evaluation code, with the differences listed in
docs/evaluation.md.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field
from torch import Tensor
from torchvision.transforms import v2

from openeupe.config import Config
from openeupe.datasets.dense_files import IGNORE

NYU_SIZE = (480, 640)


class LabelledCrops(Config):
    """Numbers of ADE20K's training crops."""

    short: int = Field(512, ge=1, description="Pixels of the short side, aspect kept")
    scale: tuple[float, float] = Field((0.5, 2.0), description="Times short, in training")
    crop: int = Field(512, ge=1, description="Pixels of the crop (and of the evaluation window)")
    largest_share: float = Field(0.75, gt=0, description="No class may fill more of a crop ...")
    tries: int = Field(10, ge=1, description="... if one of so many crops succeeds")
    flip: float = Field(0.5, ge=0, le=1)
    distort: float = Field(0.5, ge=0, le=1, description="Probability of each colour change")
    brightness_offset: float = Field(32, ge=0, le=255, description="Added: 0 -+ this, of 255")
    contrast: float = Field(0.5, ge=0, le=1, description="Factor of each value: 1 -+ this")
    saturation: float = Field(0.5, ge=0, le=1, description="Factor about the gray value: 1 -+ this")
    hue: float = Field(0.5, ge=0, le=0.5, description="Turn of the circle -+ this")


class DepthCrops(Config):
    """Numbers of NYUv2's training crops."""

    box: tuple[int, int, int, int] = Field(
        (43, 45, 608, 472), description="x0, y0, x1, y1 of a 640 x 480 image that are trained on"
    )
    rotate: float = Field(0.5, ge=0, le=1)
    degrees: float = Field(2.5, ge=0)
    flip: float = Field(0.5, ge=0, le=1)
    crop: tuple[int, int] = Field((416, 544), description="Height, width")
    recolour: float = Field(0.5, ge=0, le=1, description="Probability of all three")
    gamma: tuple[float, float] = Field((0.9, 1.1), description="Exponent of values of 0 to 255")
    brightness: tuple[float, float] = Field((0.75, 1.25), description="Factor of all channels")
    colour: tuple[float, float] = Field((0.9, 1.1), description="Factor of each channel")


def labelled_crop(
    image: Image.Image,
    mask: NDArray[np.uint8],
    random: np.random.Generator,
    settings: LabelledCrops,
    crop: int,
    short: int,
    ground: tuple[int, ...],
) -> tuple[Tensor, Tensor]:
    """uint8 pixels `[3, crop, crop]` and labels `[crop, crop]`: scale, crop, flip, colour, padding.

    Args:
        ground: RGB of the padding: the encoder's mean, which it sees as zero.
    """
    size = resized(image.size, max(int(short * random.uniform(*settings.scale)), 1))
    image = image.resize(size, Image.Resampling.BILINEAR)
    labels = np.array(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
    width, height = min(crop, size[0]), min(crop, size[1])
    for attempt in range(settings.tries + 1):
        left = int(random.integers(size[0] - width + 1))
        top = int(random.integers(size[1] - height + 1))
        part = labels[top : top + height, left : left + width]
        if attempt == settings.tries:
            break  # the last is taken as it is
        counts = np.bincount(part.ravel(), minlength=256)[:IGNORE]
        if (counts > 0).sum() > 1 and counts.max() < settings.largest_share * counts.sum():
            break
    image = image.crop((left, top, left + width, top + height))
    if random.random() < settings.flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        part = part[:, ::-1]
    pixels = distorted(v2.functional.pil_to_tensor(image), random, settings)
    padded = torch.tensor(ground, dtype=torch.uint8)[:, None, None].repeat(1, crop, crop)
    padded[:, :height, :width] = pixels
    out = np.full((crop, crop), IGNORE, np.uint8)
    out[:height, :width] = part
    return padded, torch.from_numpy(out)


def distorted(pixels: Tensor, random: np.random.Generator, settings: LabelledCrops) -> Tensor:
    """Photometric distortion of uint8 `[3, H, W]`: brightness, contrast (before or after), colour.

    Values are cut to 0..255 and to whole levels after each change, as the released code cuts them.
    """

    def factor(width: float) -> float:
        return float(random.uniform(1 - width, 1 + width))

    def now() -> bool:
        return bool(random.random() < settings.distort)

    def cut(values: Tensor) -> Tensor:
        return values.clamp(0, 255).to(torch.uint8)

    contrast_first = random.random() < 0.5
    if now():
        offset = settings.brightness_offset
        pixels = cut(pixels.float() + float(random.uniform(-offset, offset)))
    if contrast_first and now():
        pixels = cut(pixels.float() * factor(settings.contrast))
    if now():
        pixels = v2.functional.adjust_saturation(pixels, factor(settings.saturation))
    if now():
        turn = float(random.uniform(-settings.hue, settings.hue))
        pixels = v2.functional.adjust_hue(pixels, turn)
    if not contrast_first and now():
        pixels = cut(pixels.float() * factor(settings.contrast))
    return pixels


def resized(size: tuple[int, int], short: int) -> tuple[int, int]:
    """(width, height) of an image of `size` whose short side becomes `short`, aspect kept."""
    long = int(short * max(size) / min(size) + 0.5)
    return (short, long) if size[0] < size[1] else (long, short)


class TooSmall(ValueError):
    """An image that is smaller than the crop."""


def depth_crop(
    image: Image.Image,
    depth: NDArray[np.float32],
    random: np.random.Generator,
    settings: DepthCrops,
    height: int,
    width: int,
) -> tuple[Tensor, Tensor]:
    """uint8 pixels `[3, height, width]` and metres `[height, width]`, 0 where unknown.

    NYUv2's white border cut off, rotation, flip, crop, colour.
    """
    metres = Image.fromarray(depth)
    if image.size == NYU_SIZE[::-1]:
        image, metres = image.crop(settings.box), metres.crop(settings.box)
    if random.random() < settings.rotate:
        angle = random.uniform(-settings.degrees, settings.degrees)
        image = image.rotate(angle, Image.Resampling.BILINEAR)
        metres = metres.rotate(angle, Image.Resampling.NEAREST)
    if random.random() < settings.flip:
        image, metres = (x.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for x in (image, metres))
    if image.width < width or image.height < height:
        raise TooSmall
    left = int(random.integers(image.width - width + 1))
    top = int(random.integers(image.height - height + 1))
    corners = (left, top, left + width, top + height)
    pixels = v2.functional.pil_to_tensor(image.crop(corners))
    pixels = recoloured(pixels, random, settings)
    return pixels, torch.from_numpy(np.array(metres.crop(corners)))


def recoloured(pixels: Tensor, random: np.random.Generator, settings: DepthCrops) -> Tensor:
    """Gamma, brightness and colour of uint8 `[3, H, W]`: all three, or none.

    The exponent is that of values of 0 to 255, as in the released code: at 0.9 a gray of 128
    becomes 79, at 1.1 it becomes 208.
    """
    if random.random() >= settings.recolour:
        return pixels
    values = pixels.float() ** float(random.uniform(*settings.gamma))
    factor = random.uniform(*settings.brightness)
    colours = torch.tensor(random.uniform(*settings.colour, size=(3, 1, 1))) * factor
    return (values * colours.float()).clamp(0, 255).round().to(torch.uint8)
