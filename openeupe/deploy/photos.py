"""Photos that files are proved on, and calibrated with."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from openeupe.data import BrokenImage, FolderSource, View
from openeupe.data.photos import registry_photos
from openeupe.deploy.program import Size
from openeupe.errors import InputError

PROOF = 8  # that parity is proved on; calibration never sees them
CALIBRATION = 64  # at most
_LEAST_PROOF, _LEAST_CALIBRATION = 2, 4


class Photos:
    """Photos of a folder, or the package registry's; those of the proof are no others' business.

    Args:
        calibrate: whether some are wanted for calibration, too.

    Raises:
        InputError: for a folder that is missing or holds too few readable images.
    """

    def __init__(self, folder: Path | None, calibrate: bool) -> None:
        source = FolderSource(folder or registry_photos())
        wanted = min(PROOF + (CALIBRATION if calibrate else 0), len(source))
        # Spread over the folder: neighbours by name are often alike.
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
                f"--images {folder}: {len(images)} readable images, but proof"
                f"{' and calibration' * calibrate} need {least} at least: add some"
            )
        # Proof and calibration interleave, so that both see every part of the folder.
        step = max(len(images) // PROOF, 1)
        chosen = range(0, len(images), step)[:PROOF]
        self._proof = [images[i] for i in chosen]
        self._calibration = [image for i, image in enumerate(images) if i not in chosen]
        self.said = {
            "from": "package registry" if folder is None else str(folder),
            "proof": len(self._proof),
            "calibration": len(self._calibration),
        }

    def proof(self, size: Size) -> Tensor:
        """uint8 `[N, 3, H, W]`, cropped and resized to a size."""
        return torch.stack([View(*size).image(image) for image in self._proof])

    def calibration(self, size: Size) -> Tensor:
        """As `proof`, the other photos."""
        return torch.stack([View(*size).image(image) for image in self._calibration])
