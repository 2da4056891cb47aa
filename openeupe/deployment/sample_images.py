"""Sample images for parity checks and calibration."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL.Image import Image
from torch import Tensor

from openeupe.data import BrokenImage, FolderSource, View
from openeupe.data.registry_images import registry_images
from openeupe.encoders.export_layout import Size
from openeupe.errors import InputError

PROOF = 8  # for the parity check; not used for calibration
TRIAL = 8  # maximum for choosing int8 settings; separate from calibration images
CALIBRATION = 64  # at most
_LEAST_PROOF, _LEAST_CALIBRATION = 2, 4  # the latter with those of the trial


class SampleImages:
    """Disjoint images for the parity check, trials and calibration.

    Args:
        calibrate: whether some are wanted for trial and calibration.

    Raises:
        InputError: for a folder that is missing or holds too few readable images.
    """

    def __init__(self, folder: Path | None, calibrate: bool) -> None:
        source = FolderSource(folder or registry_images())
        wanted = min(PROOF + (TRIAL + CALIBRATION if calibrate else 0), len(source))
        # Spread over the folder: neighbours by name are often similar.
        order = torch.linspace(0, len(source) - 1, wanted).round().long()
        images = []
        for index in order.unique().tolist():
            try:
                images.append(source.read(index))
            except BrokenImage:
                continue
        least = PROOF + _LEAST_CALIBRATION if calibrate else _LEAST_PROOF
        if len(images) < least:
            raise InputError(
                f"images {folder}: {len(images)} readable images, but parity"
                f"{' and calibration' * calibrate} need {least} at least: add some"
            )
        self._proof, others = _spread(images, PROOF)
        self._trial, self._calibration = _spread(others, min(TRIAL, len(others) // 3))
        self.counts = {
            "from": "package registry" if folder is None else str(folder),
            "proof": len(self._proof),
            "trial": len(self._trial),
            "calibration": len(self._calibration),
        }

    def proof(self, size: Size) -> Tensor:
        """uint8 `[N, 3, H, W]`, cropped and resized to a size."""
        return torch.stack([View(*size).image(image) for image in self._proof])

    def trial(self, size: Size) -> Tensor:
        """As `proof`, the images for choosing int8 settings."""
        return torch.stack([View(*size).image(image) for image in self._trial])

    def calibration(self, size: Size) -> Tensor:
        """As `proof`, all others."""
        return torch.stack([View(*size).image(image) for image in self._calibration])


def _spread(images: list[Image], count: int) -> tuple[list[Image], list[Image]]:
    """Split into evenly spaced images and the others."""
    step = max(len(images) // max(count, 1), 1)
    chosen = range(0, len(images), step)[:count]
    return [images[i] for i in chosen], [x for i, x in enumerate(images) if i not in chosen]
