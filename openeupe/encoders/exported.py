"""Load an exported folder as an encoder, for evaluation."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from openeupe.encoders.encoder import Encoder, Tokens
from openeupe.encoders.engines import ENGINES, Session
from openeupe.encoders.export_layout import (
    ABOUT,
    Size,
    check_contents,
    file_for,
    read_about,
)
from openeupe.encoders.weights import first_line
from openeupe.errors import InputError


class ExportedEncoder(Encoder):
    """The files of an exported folder as an encoder; no gradients.

    Args:
        folder: what `openeupe export` wrote.
        threads: of the engine; default: as many as torch uses.

    Raises:
        InputError: if the folder is incomplete, or the engine is not installed.
    """

    def __init__(self, folder: Path, threads: int | None = None) -> None:
        about = read_about(folder)
        was = about["encoder"]
        super().__init__(
            name=f"{was['name']} ({about['target']} {about['precision']})",
            args={"file": check_contents(folder, about)},
            cls_dim=was["cls_dim"],
            patch_dim=was["patch_dim"],
            patch_size=was["patch_size"],
            resolution=was["resolution"],
            mean=(0.0, 0.0, 0.0),  # the file takes raw pixels
            std=(1.0, 1.0, 1.0),
        )
        self.folder, self.about = folder, about
        self.threads = threads
        self.engine = ENGINES[about["target"]]
        self.engine.require(self.engine.runtime)
        self._sessions: dict[str, Session] = {}

    def tokens(self, pixels: Tensor) -> Tokens:
        session = self.session((pixels.shape[-2], pixels.shape[-1]))
        images = pixels.detach().cpu().float()
        if self.about["pixels"] == "uint8":
            images = (images * 255).round().clamp(0, 255).byte()
        try:
            tokens = run_in_batches(session, images, self.engine.batch)
        except Exception as error:  # engines raise errors of their own kinds
            raise self._cannot_run(error) from error
        grid = (pixels.shape[-2] // self.patch_size, pixels.shape[-1] // self.patch_size)
        wanted = ((len(pixels), self.cls_dim), (len(pixels), self.patch_dim, *grid))
        shapes = (tuple(tokens.cls.shape), tuple(tokens.patches.shape))
        if shapes != wanted:
            raise InputError(
                f"{self.folder} gives tokens of {shapes[0]} and {shapes[1]} instead of {wanted[0]} "
                f"and {wanted[1]}, as {ABOUT} has them: export the encoder again"
            )
        return Tokens(tokens.cls.to(pixels.device), tokens.patches.to(pixels.device))

    def session(self, size: Size, batch: int | None = None) -> Session:
        """Open the engine with the file of one size, once."""
        file = file_for(self.folder, self.about, size)
        opened = f"{file} {batch}"
        if opened not in self._sessions:
            try:
                self._sessions[opened] = self.engine.open(
                    self.folder / file,
                    self.about["precision"],
                    self.threads or torch.get_num_threads(),
                    batch or self.engine.batch,
                )
            except (InputError, MemoryError):
                raise
            except Exception as error:  # each engine raises its own on damaged bytes
                raise self._cannot_run(error) from error
        return self._sessions[opened]

    def _cannot_run(self, error: Exception) -> InputError:
        return InputError(
            f"{self.folder} cannot be run by {self.engine.name} ({first_line(error)}): export the "
            "encoder again"
        )


def run_in_batches(session: Session, images: Tensor, batch: int | None) -> Tokens:
    """Tokens of all images; `batch`: the size that the file is fixed to."""
    parts = [session(part) for part in images.split(batch or len(images))]
    return Tokens(torch.cat([p.cls for p in parts]), torch.cat([p.patches for p in parts]))


def check_precision(encoder: Encoder, precision: str, option: str) -> None:
    """Refuse a precision that would have no effect: an exported file has its own.

    Raises:
        InputError: naming the option.
    """
    if precision != "fp32" and isinstance(encoder, ExportedEncoder):
        raise InputError(
            f"{option}: {encoder.folder} has the precision that it was exported with: leave it out"
        )
