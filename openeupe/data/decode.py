"""Encoded bytes -> an upright 8-bit RGB image, or `BrokenImage`."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from openeupe.data.string_array import printable
from openeupe.errors import InputError
from openeupe.limits import IMAGE_BYTES

EXTENSIONS = ("jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff")
_STRIP = 2**22  # pixels that are converted at once: copies of a large image take gigabytes
# Resampling puts some float pixels above white; they do not make the range a larger one.
_OVERSHOOT = 1.5


class BrokenImage(Exception):
    """An image that cannot be used: missing, truncated, not an image, or absurdly large."""


def decode(
    encoded: bytes | Path, name: str, min_resolution: int | None = None, *, gray: bool = False
) -> Image.Image:
    """Decode an image file or its bytes into an upright RGB image.

    EXIF orientation is applied. Transparent pixels are shown on white. Gray of more than 8
    bits is scaled by its range (16 bits: 65535 is white), CMYK and palettes are converted.

    Args:
        encoded: a file or its bytes.
        name: of the image, in error messages.
        min_resolution: a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size, which is much faster,
            while both sides stay at least this many pixels. None: always full size.
        gray: the luminance alone (mode L), which a JPEG is decoded to in less time.

    Raises:
        BrokenImage: if it cannot be read completely, or has more pixels than
            `PIL.Image.MAX_IMAGE_PIXELS` (a decompression bomb).
    """
    try:
        with opened(encoded) as image:
            return upright(image, min_resolution, gray=gray)
    except MemoryError:
        raise
    except NotAFile as error:
        raise BrokenImage(f"{name}: cannot be read as an image ({error})") from error
    except Exception as error:  # Pillow's readers raise nearly anything on damaged bytes
        raise BrokenImage(f"{name}: cannot be read as an image") from error


class NotAFile(OSError):
    """A pipe, device, socket, folder or gigantic file."""


def check_file(file: Path) -> None:
    """Refuse a path that is no regular file, before it is opened.

    Raises:
        NotAFile: for a pipe, device, socket, folder, or a file of more than `IMAGE_BYTES`.
        OSError: if there is no such file.
    """
    status = os.stat(file)
    if not stat.S_ISREG(status.st_mode):
        raise NotAFile("it is not a file")
    if status.st_size > IMAGE_BYTES:
        raise NotAFile(f"it has {status.st_size} bytes, more than {IMAGE_BYTES}")


def read_encoded(file: Path) -> bytes:
    """The bytes of an image file. Raises `OSError`, as `check_file` does."""
    check_file(file)
    return file.read_bytes()


@contextlib.contextmanager
def opened(encoded: bytes | Path) -> Iterator[Image.Image]:
    """An image of which only the header is read yet. Raises the errors of Pillow's readers."""
    if isinstance(encoded, Path):
        check_file(encoded)
    with Image.open(encoded if isinstance(encoded, Path) else BytesIO(encoded)) as image:
        if (most := Image.MAX_IMAGE_PIXELS) is not None and image.width * image.height > most:
            raise Image.DecompressionBombError(f"more than {most} pixels")
        yield image


def upright(
    image: Image.Image, min_resolution: int | None = None, *, gray: bool = False
) -> Image.Image:
    """`decode` of an image that is `opened`. Raises the errors of Pillow's readers."""
    if min_resolution is not None or gray:
        resolution = min_resolution or max(image.size)  # the latter: at its own size
        image.draft("L" if gray else None, (resolution, resolution))
    image.load()
    with contextlib.suppress(Exception):  # unreadable EXIF: as if there were none
        ImageOps.exif_transpose(image, in_place=True)
    if gray and image.mode == "L" and not image.has_transparency_data:
        return image.copy()
    return _rgb(image).convert("L") if gray else _rgb(image)


def image_size(file: Path) -> tuple[int, int]:
    """(width, height) from an image file's header alone: the cheap check before long work.

    Raises:
        InputError: naming the file, if it cannot be read as an image.
    """
    try:
        with opened(file) as image:
            return image.size
    except Exception as error:  # Pillow's readers raise nearly anything on damaged bytes
        raise InputError(
            f"{printable(str(file))} cannot be read as an image: replace the file"
        ) from error


def upright_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) of an `opened` image as `upright` gives it. Of a PNG this reads the file.

    Raises the errors of Pillow's readers.
    """
    turned = image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
    return image.size[::-1] if turned else image.size


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):
        return _deep_gray(image)
    if image.has_transparency_data:
        return _in_strips(image, _over_white)
    return image.convert("RGB")  # of an RGB image: a copy that outlives the file


def _over_white(image: Image.Image) -> Image.Image:
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def _strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """(first row, strip) from top to bottom."""
    rows = max(_STRIP // image.width, 1)
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _in_strips(image: Image.Image, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """`convert` an image strip by strip, without a copy of the whole."""
    if image.width * image.height <= _STRIP:
        return convert(image)
    whole = Image.new("RGB", image.size)
    for top, strip in _strips(image):
        whole.paste(convert(strip), (0, top))
    return whole


def _values(image: Image.Image) -> NDArray[np.float64]:
    return np.asarray(image).astype(np.float64)


def _top(image: Image.Image) -> float:
    values = _values(image)
    return float(values[np.isfinite(values)].max(initial=0))


def _deep_gray(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        white = 65535.0
    else:  # 32-bit integers and floats do not contain their range: the smallest usual one that fits
        top = max(_top(strip) for _, strip in _strips(image))
        floats = image.mode == "F"
        usual = (1.0, 255.0, 65535.0) if floats else (255.0, 65535.0)
        over = _OVERSHOOT if floats else 1.0
        white = next((level for level in usual if top <= level * over), top)

    def scaled(strip: Image.Image) -> Image.Image:
        values = np.nan_to_num(_values(strip), nan=0.0, posinf=white, neginf=0.0)
        gray = (values.clip(0, white) * (255 / white)).round().astype(np.uint8)
        return Image.fromarray(gray).convert("RGB")

    return _in_strips(image, scaled)
