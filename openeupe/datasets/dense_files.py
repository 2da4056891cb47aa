"""Images with a label file each: a class or a depth per pixel."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from openeupe.data.decode import EXTENSIONS, decode, upright_size
from openeupe.data.string_array import printable
from openeupe.errors import InputError
from openeupe.identity import facts_identity, files_identity

IGNORE = 255  # the mask value that is not evaluated
_UNKNOWN = -1


class Pairs:
    """Images in a fixed order, each with a file of per-pixel values.

    Args:
        root: the folder that names and the fingerprint are relative to.
        files: (image, labels) of each sample.
        what: name of the second file in messages: "mask" or "depth map".
    """

    def __init__(self, root: Path, files: Sequence[tuple[Path, Path]], what: str) -> None:
        self.root, self.files, self.what = root, list(files), what

    def __len__(self) -> int:
        return len(self.files)

    def read(self, index: int) -> Image.Image:
        """RGB image `index`. Raises `BrokenImage`."""
        file = self.files[index][0]
        return decode(file, printable(str(file)))

    def name(self, index: int) -> str:
        """The image's path inside the set's folder."""
        return printable(self.files[index][0].relative_to(self.root).as_posix())

    @cached_property
    def fingerprint(self) -> str:
        """Identity of the images, by relative names and contents."""
        return files_identity(self.root, (image for image, _ in self.files))

    @cached_property
    def identity(self) -> str:
        """Identity of images, label files, and what their values mean."""
        labels = files_identity(self.root, (label for _, label in self.files))
        return facts_identity(self.fingerprint, labels, self._meaning())

    def check(self) -> None:
        """Check every image's header and every label file."""
        with ThreadPoolExecutor(8) as pool:
            for _ in pool.map(self._check, range(len(self))):
                pass

    def values(self, index: int) -> NDArray[np.generic]:
        """`[H, W]` numbers as the label file has them. Raises `InputError`."""
        file = self.files[index][1]
        with _opened(file, self.what) as image:
            if len(image.getbands()) != 1:
                raise InputError(
                    f"{printable(str(file))} is a colour picture: a {self.what} has one number a "
                    "pixel (8 or 16 bits)"
                )
            try:
                return np.asarray(image)
            except Exception as error:  # Pillow's readers raise nearly anything on damaged bytes
                raise _damaged(file, self.what) from error

    def _check(self, index: int) -> None:
        image, labels = self.files[index]
        with _opened(image, "image") as opened:
            try:
                size = upright_size(opened)
            except Exception as error:
                raise _damaged(image, "image") from error
        height, width = self._read_labels(index).shape
        if (width, height) != size:
            raise InputError(
                f"{printable(str(labels))} is {width} x {height}, its image {size[0]} x {size[1]}: "
                f"a {self.what} must have the size of its image"
            )

    def _read_labels(self, index: int) -> NDArray[np.generic]:
        return self.values(index)

    def _meaning(self) -> object:
        """Meaning of the values of a label file, as plain data."""
        raise NotImplementedError


class MaskFiles(Pairs):
    """Images with a class for each pixel: a `MaskedImages`.

    Args:
        classes: names; number k is mask value k.
        numbers: from a file's pixel value to the class's number; other values are errors.
        ignore: values that have no label. 255 has none unless `numbers` has it.
    """

    def __init__(
        self,
        root: Path,
        files: Sequence[tuple[Path, Path]],
        classes: Sequence[str],
        numbers: Mapping[int, int],
        ignore: Iterable[int],
    ) -> None:
        super().__init__(root, files, "mask")
        self.classes = list(classes)
        self._numbers = np.full(1 << 16, _UNKNOWN, np.int16)
        self._numbers[[IGNORE, *ignore]] = IGNORE
        self._numbers[list(numbers)] = list(numbers.values())

    def mask(self, index: int) -> NDArray[np.uint8]:
        """`[H, W]` uint8, 255 is not evaluated. Raises `InputError` for a value without a class."""
        return self._read_labels(index)

    def _read_labels(self, index: int) -> NDArray[np.uint8]:
        values = self.values(index)
        if values.dtype.kind not in "uib" or values.min() < 0 or values.max() >= len(self._numbers):
            raise InputError(
                f"{printable(str(self.files[index][1]))} is no mask: its values must be whole "
                "numbers from 0 to 65535"
            )
        numbers = self._numbers[values.astype(np.int64)]
        if (numbers == _UNKNOWN).any():
            raise InputError(
                f"{printable(str(self.files[index][1]))} has the value "
                f"{values[numbers == _UNKNOWN].flat[0]}, which is no class of {len(self.classes)}: "
                "correct classes, or list the value under ignore"
            )
        return numbers.astype(np.uint8)

    def _meaning(self) -> object:
        known = np.flatnonzero(self._numbers != _UNKNOWN)
        return [self.classes, known.tolist(), self._numbers[known].tolist()]


class DepthFiles(Pairs):
    """Images with a distance for each pixel: a `DepthImages`.

    Args:
        scale: metres = the file's value / scale; 0 is unknown.
    """

    def __init__(self, root: Path, files: Sequence[tuple[Path, Path]], scale: float) -> None:
        super().__init__(root, files, "depth map")
        self.scale = scale

    def depth(self, index: int) -> NDArray[np.float32]:
        """`[H, W]` float32 metres."""
        return (self.values(index).astype(np.float64) / self.scale).astype(np.float32)

    def _meaning(self) -> object:
        return self.scale


def by_stem(
    images: Path,
    labels: Path,
    what: str,
    rename: Callable[[str], str] = str,
    prefix: str = "",
) -> list[tuple[Path, Path]]:
    """Pairs (image, labels) of equal relative paths without the ending, in order.

    Images without labels are left out.

    Args:
        rename: from the labels' relative path without ending to the image's.
        prefix: what the labels' file names begin with.

    Raises:
        InputError: for a missing or empty folder, labels without an image, two of one name.
    """
    pictures = _stems(images, "images")
    found = []
    for stem, file in _stems(labels, f"{what}s", prefix).items():
        if (name := rename(stem)) not in pictures:
            raise InputError(
                f"{printable(str(file))} has no image {printable(name)}.* in {images}: add the "
                f"image, or remove the {what}"
            )
        found.append((pictures[name], file))
    return found


def _stems(folder: Path, what: str, prefix: str = "") -> dict[str, Path]:
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: it should hold {what}; correct the path")
    found: dict[str, Path] = {}
    for file in sorted(folder.rglob("*"), key=lambda f: f.relative_to(folder).as_posix()):
        if file.name.startswith(".") or file.suffix[1:].lower() not in EXTENSIONS:
            continue
        if not file.name.startswith(prefix):
            continue
        stem = file.relative_to(folder).with_suffix("").as_posix()
        if stem in found:
            raise InputError(
                f"{printable(str(file))} and {found[stem].name} have one name but for the ending: "
                "keep one"
            )
        found[stem] = file
    if not found:
        raise InputError(f"{folder} holds no {what}: it needs files such as .png; check the path")
    return found


def _opened(file: Path, what: str) -> Image.Image:
    try:
        return Image.open(file)
    except Exception as error:
        raise _damaged(file, what) from error


def _damaged(file: Path, what: str) -> InputError:
    kind = "an image" if what == "image" else f"a {what}"
    return InputError(f"{printable(str(file))} cannot be read as {kind}: replace the file")
