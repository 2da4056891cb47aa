"""Augmentation of a whole batch on the device (`augment.on_device`)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from openeupe.data.augment import blur_kernel
from openeupe.data.config import AugmentConfig
from openeupe.seeds import uniform

_DRAWS = 10  # flip, whether and four strengths of jitter, gray, whether and sigma of blur, solarize
_LUMA = (0.299, 0.587, 0.114)
# RGB -> YIQ: a turn of the hue is a rotation of I and Q, the gray axis stays.
_YIQ = (_LUMA, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


def batch_draws(seeds: Sequence[int]) -> Tensor:
    """Uniform numbers float32 `[n, 10]`, a pure function of each image's seed."""
    return torch.from_numpy(uniform(np.asarray(seeds, dtype=np.uint64), _DRAWS))


class BatchAugment:
    """Flips, jitters, blurs and solarizes crops, by random numbers of each image.

    The kinds, probabilities and strengths are those of `Augment`; the draws are others, jitter is
    one matrix an image (brightness, then contrast, saturation and hue, always in this order, hue
    as a rotation in YIQ), and nothing is rounded between.

    Args:
        config: probabilities and strengths.
        resolution: of the crops, in pixels.
        device: of the crops.
    """

    def __init__(self, config: AugmentConfig, resolution: int, device: torch.device) -> None:
        self.config = config
        self.resolution = resolution
        self._same = torch.eye(3, device=device)
        self._luma = torch.tensor(_LUMA, device=device)
        self._to_yiq = torch.tensor(_YIQ, device=device)
        self._to_rgb = torch.linalg.inv(torch.tensor(_YIQ)).to(device)

    @torch.no_grad()
    def __call__(self, crops: Tensor, draws: Tensor) -> Tensor:
        """uint8 `[b, 3, S, S]` and their `batch_draws`, on the device -> uint8 of that shape.

        Nothing is read to the host.
        """
        config = self.config
        flip, jitter, *strengths, gray, blur, sigma, solarize = draws.unbind(1)
        images = crops.float() / 255
        if config.flip:
            images = torch.where(_each(flip < config.flip), images.flip(-1), images)
        if config.jitter or config.grayscale:
            images = self._colors(images, jitter, torch.stack(strengths), gray)
        if config.blur:
            chosen = blur < config.blur
            if images.device.type != "cpu":
                images = self._blurred(images, chosen, sigma)
            elif chosen.any():  # reading this would make a GPU wait
                images[chosen] = self._blurred(images[chosen], chosen[chosen], sigma[chosen])
        if config.solarize:
            bright = images >= config.solarize_threshold / 255
            inverted = torch.where(bright, 1 - images, images)
            images = torch.where(_each(solarize < config.solarize), inverted, images)
        return (images * 255).round().byte()

    def _colors(self, images: Tensor, jitter: Tensor, strengths: Tensor, gray: Tensor) -> Tensor:
        """All colors of an image by one affine map `[3, 3]` and offset."""
        config = self.config
        jittered = (jitter < config.jitter)[:, None, None]
        limits = (config.brightness, config.contrast, config.saturation)
        brightness, contrast, saturation = (
            torch.where(jittered, _factor(u, limit)[:, None, None], 1.0)
            for u, limit in zip(strengths, limits, strict=False)
        )
        angle = (2 * strengths[3] - 1) * config.hue * 2 * math.pi
        turned = torch.where(jittered, self._to_rgb @ _rotation(angle) @ self._to_yiq, self._same)
        saturation = torch.where((gray < config.grayscale)[:, None, None], 0.0, saturation)
        matrix = turned @ (saturation * self._same + (1 - saturation) * self._luma.expand(3, 3))
        # Contrast pulls towards the gray mean, which the other maps leave where it is.
        mean = (images.mean((2, 3)) @ self._luma)[:, None] * brightness[:, :, 0]
        offset = (1 - contrast[:, :, 0]) * mean
        mapped = (matrix * contrast * brightness) @ images.flatten(2) + offset[:, :, None]
        return mapped.clamp(0, 1).view_as(images)

    def _blurred(self, images: Tensor, chosen: Tensor, drawn: Tensor) -> Tensor:
        size, (low, high) = blur_kernel(self.config, self.resolution)
        sigma = low + (high - low) * drawn
        offsets = torch.arange(size, device=images.device) - size // 2
        weights = torch.exp(-0.5 * (offsets / sigma[:, None]).square())
        weights = weights / weights.sum(1, keepdim=True)
        weights = torch.where(chosen[:, None], weights, (offsets == 0).float())
        kernel = weights.repeat_interleave(3, 0)[:, None]  # every channel of every image its own
        channels = images.reshape(1, -1, *images.shape[2:])
        pad = size // 2
        padded = functional.pad(channels, (pad, pad, pad, pad), mode="reflect")
        rows = functional.conv2d(padded, kernel[..., None], groups=len(kernel))
        both = functional.conv2d(rows, kernel[..., None, :], groups=len(kernel))
        return both.clamp(0, 1).view_as(images)


def _each(chosen: Tensor) -> Tensor:
    return chosen[:, None, None, None]


def _factor(drawn: Tensor, limit: float) -> Tensor:
    low = max(0.0, 1 - limit)
    return low + (1 + limit - low) * drawn


def _rotation(angle: Tensor) -> Tensor:
    """`[b]` radians -> `[b, 3, 3]` that turn I and Q."""
    cos, sin, one, zero = angle.cos(), angle.sin(), torch.ones_like(angle), torch.zeros_like(angle)
    return torch.stack([one, zero, zero, zero, cos, -sin, zero, sin, cos], 1).view(-1, 3, 3)
