"""Images resized to a given long side, as inputs of encoders."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from openeupe.data import EXTENSIONS, BrokenImage, FolderSource, decode
from openeupe.data.string_array import printable
from openeupe.encoders import Encoder, evaluating
from openeupe.errors import InputError


@dataclass(frozen=True)
class NamedImage:
    """An image to visualize.

    name: in captions. pixels: RGB.
    """

    name: str
    pixels: Image.Image


def is_image(path: Path) -> bool:
    """Whether a path ends like an image file."""
    return path.suffix.lower().removeprefix(".") in EXTENSIONS


def read_images(
    paths: Sequence[Path], resolution: int, limit: int | None = None
) -> list[NamedImage]:
    """Read image files and folders of them. Their long side is resized to `resolution` pixels.

    Args:
        limit: maximum number of images; None: all.

    Raises:
        InputError: naming the file that is missing or cannot be read.
    """
    images: list[NamedImage] = []
    names: list[str] = []
    for path in paths:
        if path.is_dir():
            source = FolderSource(path)
            count = min(len(source), limit or len(source))
            files = [source.root / source.relative(i) for i in range(count)]
        else:
            files = [path]
        for file in files:
            if limit is not None and len(images) >= limit:
                return images
            if not file.is_file():
                raise InputError(f"{file}: no such image: check the path")
            try:
                name = unused_name(printable(file.stem), names)
                images.append(named_image(decode(file, printable(str(file))), name, resolution))
                names.append(name)
            except BrokenImage as error:
                raise InputError(f"{error}: replace the file or leave it out") from None
    return images


def unused_name(name: str, taken: Iterable[str]) -> str:
    """A unique name, numbered if needed, for files."""
    lower = {other.casefold() for other in taken}  # some file systems ignore case
    names = chain([name], (f"{name}-{number}" for number in count(2)))
    return next(free for free in names if free.casefold() not in lower)


def named_image(image: Image.Image, name: str, resolution: int) -> NamedImage:
    """An RGB image with its long side brought to `resolution` pixels."""
    scale = resolution / max(image.size)
    width, height = (max(1, round(length * scale)) for length in image.size)
    if (width, height) != image.size:
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    return NamedImage(name, image)


def read_mask(path: Path) -> Tensor:
    """Read a picture as a bool mask `[H, W]`: lighter than mid-grey is foreground.

    Raises:
        InputError: if it cannot be read.
    """
    try:
        return torch.from_numpy(np.array(decode(path, str(path)).convert("L"))) >= 128
    except BrokenImage as error:
        raise InputError(f"mask {error}: give a picture that is white where to look") from None


@torch.inference_mode()
def patch_tokens(encoder: Encoder, image: NamedImage) -> Tensor:
    """Patch tokens `[D, h, w]`, float32 on the CPU, of a whole image.

    Each side is brought to the nearest multiple of the encoder's patch size (at least two
    patches), so that nothing is cut off.
    """
    step = encoder.patch_size
    width, height = (max(2, round(length / step)) * step for length in image.pixels.size)
    resized = image.pixels
    if (width, height) != resized.size:
        resized = resized.resize((width, height), Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.array(resized)).permute(2, 0, 1)[None].float() / 255
    with evaluating(encoder):
        patches = encoder(pixels.to(encoder.mean.device)).patches[0].float().cpu()
    if not bool(torch.isfinite(patches).all()):
        raise InputError(
            f"{encoder.name} gives tokens that are not finite for {image.name}: its weights are "
            "damaged or its training diverged"
        )
    return patches
