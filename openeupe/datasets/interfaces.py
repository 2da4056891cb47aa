"""Interfaces of evaluation data sets: images in a fixed order with labels."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from openeupe.errors import InputError


class Images(Protocol):
    """A fixed, ordered set of images."""

    @property
    def fingerprint(self) -> str:
        """Identity of the images by their contents, in hex digits: the key of cached tokens."""
        ...

    def __len__(self) -> int: ...

    def read(self, index: int) -> Image.Image:
        """RGB image `index`. Raises `BrokenImage`."""
        ...

    def name(self, index: int) -> str:
        """Unique name of image `index`, for messages and per-sample results."""
        ...


def check_apart(train: Images, test: Images) -> None:
    """Refuse two parts with the same images: the score would measure memorization.

    Raises:
        InputError: in one line.
    """
    if train.fingerprint == test.fingerprint:
        raise InputError(
            f"data: train and test are the same {len(test)} images, such as {test.name(0)}: give "
            "two separate parts"
        )


class WithLabels(Images, Protocol):
    """Images with labels of some kind."""

    @property
    def identity(self) -> str:
        """Identity of images and labels, in hex digits, for saved results."""
        ...


class LabelledImages(WithLabels, Protocol):
    """Images with a class each."""

    @property
    def classes(self) -> list[str] | None:
        """Class names by number, to check that train and test agree."""
        ...

    def label(self, index: int) -> int | None:
        """Number of the image's class in `classes`."""
        ...


class MaskedImages(WithLabels, Protocol):
    """Images with a class for each pixel."""

    @property
    def classes(self) -> list[str]:
        """Names; number k is mask value k."""
        ...

    def mask(self, index: int) -> NDArray[np.uint8]:
        """`[H, W]` uint8 of the image's own size; 255 is not evaluated."""
        ...


class DepthImages(WithLabels, Protocol):
    """Images with a distance for each pixel."""

    def depth(self, index: int) -> NDArray[np.float32]:
        """`[H, W]` float32 metres of the image's own size; 0 is unknown."""
        ...


class KeypointImages(WithLabels, Protocol):
    """Images of objects with named points, and the pairs to match."""

    def keypoints(self, index: int) -> dict[str, tuple[float, float]]:
        """Visible points of image `index`: name -> (x, y) in pixels of the image."""
        ...

    def box(self, index: int) -> tuple[float, float, float, float]:
        """The object's box (x0, y0, x1, y1) in pixels; PCK's threshold is measured by it."""
        ...

    def pairs(self) -> list[tuple[int, int, str]]:
        """(source image, target image, category) of every pair, in a fixed order."""
        ...
