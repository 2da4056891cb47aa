"""Folders of images as evaluation data: named relative to the folder, identified once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Literal

from PIL import Image

from openeupe.data.decode import BrokenImage, decode
from openeupe.data.folders import FolderSource
from openeupe.data.string_array import Names, printable
from openeupe.errors import InputError
from openeupe.identity import facts_identity


class ImageFolder(FolderSource):
    """The images under a folder, a `LabelledImages` if it has class folders."""

    @cached_property
    def fingerprint(self) -> str:
        """As `FolderSource`; computed once, since it reads every file."""
        return super().fingerprint

    @property
    def identity(self) -> str:
        """Identity of the images and their class folders."""
        return facts_identity(self.fingerprint, self.classes)

    def name(self, index: int) -> str:
        """Path inside the folder, the same on every machine."""
        return printable(self._names[index])

    def read(self, index: int, min_resolution: int | None = None) -> Image.Image:
        """RGB image `index`. Raises `BrokenImage`."""
        file = self.root / self._names[index]
        return decode(file, printable(str(file)), min_resolution)


class HeldoutPart(ImageFolder):
    """The readable images of one part of a training folder.

    Args:
        share: of the images that is held out.
        count: images at most, evenly spaced over the part (so of every class folder some).

    Raises:
        InputError: as `FolderSource`, and if none of the images can be read.
    """

    def __init__(
        self, path: Path, share: float, part: Literal["train", "heldout"], count: int | None = None
    ) -> None:
        super().__init__(path, heldout=share, part=part)
        count = min(count or len(self), len(self))
        chosen = [number * len(self) // count for number in range(count)]
        with ThreadPoolExecutor(8) as pool:
            readable = list(pool.map(self._is_readable, chosen))
        kept = [index for index, fine in zip(chosen, readable, strict=True) if fine]
        if not kept:
            raise InputError(f"{path}: none of its images can be read, such as {self.name(0)}")
        self._names = Names([self._names[index] for index in kept])
        if self.classes is not None:
            self._labels = self._labels[kept]

    def _is_readable(self, index: int) -> bool:
        try:
            self.read(index, min_resolution=1)  # a JPEG at an eighth of its size
        except BrokenImage:
            return False
        return True
