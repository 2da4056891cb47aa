"""Frozen tokens, computed once per image and view."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Literal

import torch
from PIL import Image
from torch import Tensor

from openeupe.data import BrokenImage, View
from openeupe.data.ahead import batched_ahead
from openeupe.datasets.interfaces import Images
from openeupe.encoders import Encoder, Tokens, evaluating
from openeupe.errors import InputError
from openeupe.progress import LOGGED, Progress

Precision = Literal["fp32", "bf16"]


@contextmanager
def frozen(encoder: Encoder) -> Iterator[Encoder]:
    """Use the encoder in eval mode without gradients, then restore its modes."""
    with evaluating(encoder), torch.no_grad():
        yield encoder


def fitting_resolution(encoder: Encoder, resolution: int) -> int:
    """The multiple of the encoder's patch size nearest to `resolution` (a tie goes up)."""
    return max((resolution + encoder.patch_size // 2) // encoder.patch_size, 1) * encoder.patch_size


class Features:
    """Tokens of one encoder for whole data sets, computed once.

    Images are decoded by threads while the encoder works on the batch before. Class tokens are
    cached for every (set, view); patch tokens, which are large, for the last `keep` of them.

    Args:
        precision: "bf16" runs the encoder under autocast; the tokens are float32 all the same.
        batch_size: images a forward pass.
        workers: decoding threads.
        views: cache of decoded views, for encoders that are evaluated later.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        precision: Precision = "fp32",
        batch_size: int = 32,
        workers: int = 2,
        keep: int = 2,
        progress: Progress = LOGGED,
        views: dict[tuple[str, View], Tensor] | None = None,
    ) -> None:
        self.encoder = encoder
        self.views = views
        self.precision = precision
        self.batch_size = batch_size
        self.workers = workers
        self.keep = keep
        self.progress = progress
        self._cls: dict[tuple[str, View], Tensor] = {}
        self._means: dict[tuple[str, View], Tensor] = {}
        self._patches: dict[tuple[str, View], Tensor] = {}

    def cls(self, images: Images, view: View) -> Tensor:
        """Class tokens `[N, Dc]`, float32 on the CPU."""
        key = (images.fingerprint, view)
        if key not in self._cls:
            self._cls[key] = torch.cat([t.cls.float().cpu() for t in self._stream(images, view)])
        return self._cls[key]

    def means(self, images: Images, view: View) -> Tensor:
        """Mean patch tokens `[N, Dp]`, float32 on the CPU."""
        key = (images.fingerprint, view)
        if key not in self._means:
            cls, means = [], []
            for tokens in self._stream(images, view):
                cls.append(tokens.cls.float().cpu())
                means.append(tokens.patches.float().mean((2, 3)).cpu())
            self._cls[key], self._means[key] = torch.cat(cls), torch.cat(means)
        return self._means[key]

    def patches(self, images: Images, view: View) -> Tensor:
        """Patch tokens `[N, Dp, h, w]`, float16 on the CPU, to be read in batches.

        float16 is enough for normalized and trained tokens; larger values are clamped.
        """
        key = (images.fingerprint, view)
        if key not in self._patches:
            cls, grids = [], []
            for tokens in self._stream(images, view):
                cls.append(tokens.cls.float().cpu())
                grids.append(tokens.patches.float().clamp(-65504, 65504).half().cpu())
            self._cls[key] = torch.cat(cls)
            while len(self._patches) >= self.keep:
                self._patches.pop(next(iter(self._patches)))
            self._patches[key] = torch.cat(grids)
        return self._patches[key]

    def __call__(self, pixels: Tensor) -> Tokens:
        """Tokens of one batch: uint8 or [0, 1] float `[B, 3, H, W]` -> float32 on the device."""
        device = self.encoder.mean.device
        pixels = pixels.to(device, non_blocking=True)
        if not pixels.is_floating_point():
            pixels = pixels.float() / 255
        half = torch.autocast(device.type, torch.bfloat16) if self.precision == "bf16" else None
        with frozen(self.encoder), half or nullcontext():
            tokens = self.encoder(pixels)
        return Tokens(tokens.cls.float(), tokens.patches.float())

    def _stream(self, images: Images, view: View) -> Iterator[Tokens]:
        if self.views is not None and (images.fingerprint, view) in self.views:
            for some in self.views[images.fingerprint, view].split(self.batch_size):
                yield self(some)
            return
        kept: list[Tensor] = []

        def read(index: int) -> Tensor:
            return view.image(readable(images, index))

        with self.progress.task(f"{self.encoder.name} looks", len(images)) as task:
            for views in batched_ahead(read, range(len(images)), self.batch_size, self.workers):
                some = torch.stack(views)
                if self.views is not None:
                    kept.append(some)
                yield self(some)
                task.advance(len(views))
        if self.views is not None:
            self.views[images.fingerprint, view] = torch.cat(kept)


def readable(images: Images, index: int) -> Image.Image:
    """Image `index`. A broken one is an `InputError`, since no image is left out."""
    try:
        return images.read(index)
    except BrokenImage as error:
        raise InputError(f"{error}: evaluations do not skip images; replace the file") from None


def mean_colour(encoder: Encoder) -> tuple[int, int, int]:
    """The encoder's input mean as an 8-bit color, rounded as LLaVA does: what it sees as zero."""
    red, green, blue = (int(255 * value) for value in encoder.mean.flatten().tolist())
    return red, green, blue
