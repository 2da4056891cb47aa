"""Images of a folder and its sub-folders."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from openeupe.data.decode import EXTENSIONS, check_file, decode, read_encoded
from openeupe.data.string_array import Names, printable
from openeupe.errors import InputError
from openeupe.identity import files_identity
from openeupe.limits import FOLDER_PATHS, IMAGES
from openeupe.seeds import derive_seed


class FolderSource:
    """The images under a folder, in the order of their relative paths.

    The order is that of the names (by code point, with `/`), not of the file system. Links are
    followed; names that begin with a dot are left out (`._a.jpg` of macOS is not an image).

    Args:
        heldout: share of the images in the part "heldout" instead of "train". The choice depends
            on relative paths only, so that adding images does not change it.

    Attributes:
        classes: names of the first-level folders, sorted, if every image is in one; else None.

    Raises:
        InputError: if the folder is missing, unreadable, or holds no image.
    """

    weights = None

    def __init__(
        self,
        path: str | Path,
        *,
        heldout: float = 0.0,
        part: Literal["train", "heldout"] = "train",
    ) -> None:
        self.root = Path(path).expanduser()
        if not self.root.is_dir():
            raise InputError(f"data path {path} is not a folder: check the path")
        try:
            found = sorted(_walk(self.root))
        except OSError as error:
            raise InputError(
                f"data path {path} cannot be listed ({error.strerror}): check its permissions"
            ) from error
        if not found:
            raise InputError(
                f"data path {path} holds no images: it needs files ending in "
                + ", ".join(f".{extension}" for extension in EXTENSIONS)
            )
        self.classes: list[str] | None = None
        if all("/" in name for name in found):  # of both parts, so that their numbers agree
            self.classes = sorted({name.split("/", 1)[0] for name in found})
        if heldout or part == "heldout":
            found = [name for name in found if is_heldout(name, heldout) == (part == "heldout")]
            if not found:
                raise InputError(
                    f"data path {path}: heldout {heldout:g} leaves no image in the part {part!r}; "
                    "add images or change heldout"
                )
        self._names = Names(found)
        if self.classes is not None:
            numbers = {name: number for number, name in enumerate(self.classes)}
            self._labels = np.array([numbers[n.split("/", 1)[0]] for n in found], dtype=np.int32)

    def __len__(self) -> int:
        return len(self._names)

    def read(self, index: int, min_resolution: int | None = None) -> Image.Image:
        """RGB image `index`; see `decode` for `min_resolution`. Raises `BrokenImage`."""
        return decode(self.root / self._names[index], self.name(index), min_resolution)

    def encoded(self, index: int) -> bytes:
        """The file's bytes. Raises `OSError`."""
        return read_encoded(self.root / self._names[index])

    def relative(self, index: int) -> str:
        """The file's path inside the folder, with `/`."""
        return self._names[index]

    def places(self) -> Iterator[str]:
        """Absolute path of each image. With `/`, and without links to the folder."""
        root = self.root.resolve().as_posix().rstrip("/")
        return (f"{root}/{self._names[index]}" for index in range(len(self)))

    def encoded_bytes(self, index: int) -> int:
        """Size of the file. Raises `OSError`."""
        return (self.root / self._names[index]).stat().st_size

    def sizes(self) -> NDArray[np.int64]:
        """Bytes of every file, -1 where one is missing."""
        return np.fromiter((self._size(i) for i in range(len(self))), np.int64, len(self))

    def _size(self, index: int) -> int:
        try:
            return self.encoded_bytes(index)
        except OSError:  # behind a link that leads nowhere
            return -1

    def listing(self) -> Iterator[tuple[str, int]]:
        """Relative path and size of every file."""
        return ((self._names[index], self._size(index)) for index in range(len(self)))

    def name(self, index: int) -> str:
        """The file's path, for messages."""
        return printable(str(self.root / self._names[index]))

    @property
    def fingerprint(self) -> str:
        """Identity of the images, by relative names and contents."""
        files = [self.root / self._names[i] for i in range(len(self))]
        for file in files:
            try:
                check_file(file)
            except OSError as error:
                reason = error.strerror or error
                raise InputError(f"{file} cannot be read ({reason}): check the file") from None
        return files_identity(self.root, files)

    def label(self, index: int) -> int | None:
        """Number of the image's class in `classes`. None where there are no classes."""
        return None if self.classes is None else int(self._labels[index])


def is_heldout(name: str, share: float) -> bool:
    """Whether an image is held out, by its path inside the folder."""
    return derive_seed("heldout", name) < share * 2**63


def _walk(root: Path) -> Iterator[str]:
    """Relative paths of the images under `root`.

    Links are followed, but not to a folder around them. Pipes, devices and sockets are left out;
    a link that leads nowhere is an image that is missing.
    """
    count, reached = 0, Counter[tuple[int, int]]()
    ahead: list[tuple[str, tuple[tuple[int, int], ...]]] = [("", ())]
    while ahead:
        inside, above = ahead.pop()
        status = os.stat(root / inside)
        here = (status.st_dev, status.st_ino)
        if here in above:
            continue
        reached[here] += 1
        if reached[here] > FOLDER_PATHS:
            raise InputError(
                f"data path {root}: links lead to {root / inside} by more than {FOLDER_PATHS} "
                "paths: remove links to folders"
            )
        with os.scandir(root / inside) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    ahead.append((f"{inside}{entry.name}/", (*above, here)))
                elif "." in entry.name and entry.name.rpartition(".")[2].lower() in EXTENSIONS:
                    if not entry.is_file() and os.path.exists(entry.path):
                        continue
                    count += 1
                    if count > IMAGES:
                        raise InputError(f"data path {root} holds more than {IMAGES} images")
                    yield inside + entry.name
