"""Training crops of images with labels: geometry for both, colour for the image alone."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field
from torch import Tensor
from torchvision.transforms import v2

from openeupe.config import Config
from openeupe.data.pairs import IGNORE

NYU_SIZE = (480, 640)


class LabelledCrops(Config):
    """Numbers of ADE20K's training crops."""

    short: int = Field(512, ge=1, description="Pixels of the short side, aspect kept")
    scale: tuple[float, float] = Field((0.5, 2.0), description="Times short, in training")
    crop: int = Field(512, ge=1, description="Pixels of the crop (and of the window that judges)")
    largest_share: float = Field(0.75, gt=0, description="No class may fill more of a crop ...")
    tries: int = Field(10, ge=1, description="... if one of so many tries succeeds")
    flip: float = Field(0.5, ge=0, le=1)
    distort: float = Field(0.5, ge=0, le=1, description="Probability of each colour change")
    brightness: float = Field(0.125, ge=0, description="Factor 1 -+ this (32 of 256)")
    contrast: float = Field(0.5, ge=0, le=1)
    saturation: float = Field(0.5, ge=0, le=1)
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
    gamma: tuple[float, float] = (0.9, 1.1)
    brightness: tuple[float, float] = (0.75, 1.25)
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
    size = resized(image.size, short * random.uniform(*settings.scale))
    image = image.resize(size, Image.Resampling.BILINEAR)
    labels = np.array(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
    width, height = min(crop, size[0]), min(crop, size[1])
    for _ in range(settings.tries):
        left = int(random.integers(size[0] - width + 1))
        top = int(random.integers(size[1] - height + 1))
        part = labels[top : top + height, left : left + width]
        counts = np.bincount(part.ravel(), minlength=256)[:IGNORE]
        if (counts > 0).sum() > 1 and counts.max() < settings.largest_share * counts.sum():
            break
    image = image.crop((left, top, left + width, top + height))
    if random.random() < settings.flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        part = part[:, ::-1]
    ground_image = Image.new("RGB", (crop, crop), ground)
    ground_image.paste(_distorted(image, random, settings))
    out = np.full((crop, crop), IGNORE, np.uint8)
    out[:height, :width] = part
    return v2.functional.pil_to_tensor(ground_image), torch.from_numpy(out)


def _distorted(
    image: Image.Image, random: np.random.Generator, settings: LabelledCrops
) -> Image.Image:
    """Photometric distortion: brightness, contrast (before or after the others), colour."""

    def factor(width: float) -> float:
        return float(random.uniform(1 - width, 1 + width))

    def now() -> bool:
        return bool(random.random() < settings.distort)

    contrast_last = random.random() < 0.5
    if now():
        image = v2.functional.adjust_brightness(image, factor(settings.brightness))
    for contrast_here in (not contrast_last, contrast_last):
        if contrast_here:
            if now():
                image = v2.functional.adjust_contrast(image, factor(settings.contrast))
            continue
        if now():
            image = v2.functional.adjust_saturation(image, factor(settings.saturation))
        if now():
            image = v2.functional.adjust_hue(image, random.uniform(-settings.hue, settings.hue))
    return image


def resized(size: tuple[int, int], short: float) -> tuple[int, int]:
    """(width, height) of an image of `size` whose short side becomes `short`, aspect kept."""
    scale = short / min(size)
    return max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)


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
    if random.random() < settings.recolour:
        factor = random.uniform(*settings.brightness)
        colours = torch.tensor(random.uniform(*settings.colour, size=(3, 1, 1)))
        values = (pixels / 255) ** random.uniform(*settings.gamma) * (factor * colours).float()
        pixels = (values.clamp(0, 1) * 255).round().to(torch.uint8)
    return pixels, torch.from_numpy(np.array(metres.crop(corners)))
