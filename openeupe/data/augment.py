"""Augmentation of an image, and resizing of views."""

from __future__ import annotations

import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional
from torchvision.transforms import v2

from openeupe.data.config import AugmentConfig
from openeupe.seeds import seeded

_BICUBIC = v2.InterpolationMode.BICUBIC


class Augment:
    """Random crop, flip, color jitter, blur and solarization (paper 4.1), once per image.

    Teachers and students see the same view. With several resolutions (paper 3.1) the crop is made
    at the largest, and `resize` makes the others.

    Args:
        config: probabilities and strengths.
        resolution: of the view, in pixels.
    """

    def __init__(self, config: AugmentConfig, resolution: int) -> None:
        self.config = config
        self.resolution = resolution
        self.min_resolution = _min_resolution(config, resolution)
        # Resampling is faster on a tensor, color on a PIL image (8-bit operations both).
        self._crop = v2.RandomResizedCrop(
            resolution, config.scale, config.ratio, _BICUBIC, antialias=True
        )
        self._steps: v2.Compose | None = None
        if config.on_device:  # the rest is BatchAugment's
            return
        steps: list[torch.nn.Module] = [v2.ToPILImage()]
        if config.flip:
            steps.append(v2.RandomHorizontalFlip(config.flip))
        if config.jitter:
            jitter = v2.ColorJitter(
                config.brightness, config.contrast, config.saturation, config.hue
            )
            steps.append(v2.RandomApply([jitter], config.jitter))
        if config.grayscale:
            steps.append(v2.RandomGrayscale(config.grayscale))
        steps.append(v2.PILToTensor())
        if config.blur:
            blur = v2.GaussianBlur(*blur_kernel(config, resolution))
            steps.append(v2.RandomApply([blur], config.blur))
        if config.solarize:
            steps.append(v2.RandomSolarize(config.solarize_threshold, config.solarize))
        self._steps = v2.Compose(steps)

    def __call__(self, image: Image.Image, seed: int) -> Tensor:
        """View `[3, S, S]`, uint8, of an RGB image: a pure function of image and seed.

        The global random state is left as it was; no accelerator is touched.
        """
        with seeded(seed):
            # The array's own layout, channels last: torch resamples it without a copy.
            view: Tensor = self._crop(torch.from_numpy(np.array(image)).permute(2, 0, 1))
            return self._steps(view) if self._steps else view.contiguous()


def blur_kernel(config: AugmentConfig, resolution: int) -> tuple[int, tuple[float, float]]:
    """Kernel side and range of sigma in pixels: at least 3 wide, always odd."""
    kernel = 2 * max(1, round((config.blur_kernel - 1) / 2 * resolution / 256)) + 1
    low, high = config.blur_sigma
    return kernel, (low * resolution / 256, high * resolution / 256)


def resize(images: Tensor, resolution: int) -> Tensor:
    """Resize to one resolution: `[B, 3, S, S]` uint8 or [0, 1] float -> `[B, 3, s, s]` float.

    Runs where `images` are. Bicubic with antialiasing, as the crop itself; the result is float32
    (or the given float type) in [0, 1]. At `s == S` pixels keep their values.
    """
    values = images if images.is_floating_point() else images.float() / 255
    if values.shape[-2:] == (resolution, resolution):
        return values
    resized = functional.interpolate(
        values, (resolution, resolution), mode="bicubic", antialias=True
    )
    return resized.clamp(0, 1)  # bicubic overshoots at edges


def _min_resolution(config: AugmentConfig, resolution: int) -> int:
    """Smallest image whose crops of `config` all have at least `resolution` pixels."""
    stretch = max(config.ratio[1], 1 / config.ratio[0])
    return math.ceil(resolution * math.sqrt(stretch / config.scale[0]))
