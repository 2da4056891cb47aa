"""Evaluation views: images and labels resized by a named geometry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2


@dataclass(frozen=True)
class View:
    """How an image is resized to `height x width` pixels.

    geometry: "crop" resizes the short side to `short` (default: the view's shorter side) and keeps
        the centre; "squash" resizes both sides and ignores the aspect ratio; "pad"
        keeps the aspect ratio, resizes the long side and centres the image on black.
    """

    height: int
    width: int
    geometry: Literal["crop", "squash", "pad"] = "crop"
    short: int | None = None

    def image(self, image: Image.Image) -> Tensor:
        """uint8 `[3, height, width]` of an RGB image, bicubic with antialiasing."""
        return v2.functional.pil_to_tensor(self._lay(image, Image.Resampling.BICUBIC, 0))

    def mask(self, mask: NDArray[np.uint8], fill: int = 255) -> Tensor:
        """uint8 labels `[H, W]` -> `[height, width]`, nearest; outside the image: `fill`."""
        laid = self._lay(Image.fromarray(mask), Image.Resampling.NEAREST, fill)
        return torch.from_numpy(np.array(laid))

    def depth(self, depth: NDArray[np.float32]) -> Tensor:
        """float32 metres `[H, W]` -> `[height, width]`, nearest; outside the image: 0 (unknown)."""
        laid = self._lay(Image.fromarray(depth, mode="F"), Image.Resampling.NEAREST, 0)
        return torch.from_numpy(np.array(laid))

    def placement(self, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """`(sx, sy, dx, dy)`: where an image of `size` (w, h) has (x, y), the view has
        `(x sx + dx, y sy + dy)`.
        """
        (width, height), (left, top) = self._resized(size)
        return width / size[0], height / size[1], float(left), float(top)

    def _resized(self, size: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
        """Size (w, h) after resizing, and position of its corner in the view."""
        if self.geometry == "squash":
            return (self.width, self.height), (0, 0)
        if self.geometry == "crop":
            # The smallest scale at which the view lies inside the image, but at least `short`.
            scale = max(self.width / size[0], self.height / size[1])
            scale = max(scale, (self.short or 0) / min(size))
        else:
            scale = min(self.width / size[0], self.height / size[1])
        width, height = max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)
        if self.geometry == "crop":
            width, height = max(width, self.width), max(height, self.height)
        else:
            width, height = min(width, self.width), min(height, self.height)
        return (width, height), ((self.width - width) // 2, (self.height - height) // 2)

    def _lay(self, image: Image.Image, how: Image.Resampling, fill: int) -> Image.Image:
        (width, height), corner = self._resized(image.size)
        resized = image.resize((width, height), how)
        if (width, height) == (self.width, self.height):
            return resized
        color = (fill,) * 3 if image.mode == "RGB" else fill
        ground = Image.new(image.mode, (self.width, self.height), color)
        ground.paste(resized, corner)
        return ground
