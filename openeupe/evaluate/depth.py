"""Monocular depth by a linear probe on frozen patch tokens (paper appendix C.4)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import v2

from openeupe.config import Config
from openeupe.data import View
from openeupe.datasets.dense import DepthData
from openeupe.datasets.interfaces import DepthImages, check_apart
from openeupe.errors import InputError
from openeupe.evaluate.column import Column, Domain, Judged
from openeupe.evaluate.crops import NYU_SIZE, DepthCrops, TooSmall, depth_crop
from openeupe.evaluate.features import fitting_side, mean_colour, readable
from openeupe.evaluate.measure import Array, Measure, Outcome
from openeupe.evaluate.online import ahead, cosine, fit_online, with_variant
from openeupe.evaluate.probe import LinearProbe, fit_cached

METRICS = ("rmse", "abs_rel", "delta1")
EIGEN = (slice(45, 471), slice(41, 601))  # rows, columns of a 480 x 640 image that are judged
_PROTOCOL = "nyuv2-linear/eupe-v2"
_COUNTED = 500  # training depths that give the floors


class OnlineDepth(DepthCrops):
    """NYUv2's linear protocol: each image augmented anew, judged whole with its mirror image.

    `crop` is fitted to the patch size (patch 14: 420 x 546).
    """

    name: Literal["online"] = "online"
    steps: int = Field(38_400, ge=1)
    batch_size: int = Field(16, ge=1)
    lr: float = Field(3e-4, gt=0, description="Of the cosine's start; 2.253e-4 is the most reached")
    final_lr: float = Field(1.2e-8, ge=0)
    beta1: tuple[float, float] = Field((0.85, 0.95), description="0 in the warm-up, then from, to")
    beta2: float = 0.99
    weight_decay: float = Field(1e-3, ge=0)
    warmup_steps: int = Field(12_800, ge=0)
    warmup_start: float = Field(1e-3, ge=0, description="Times lr, added during the warm-up")
    clip: float = Field(35.0, gt=0, description="Largest norm of the gradient")
    loss_warmup_steps: int = Field(100, ge=0, description="SigLoss without its variance term")


class CachedDepth(Config):
    """Features once per image, at one size: the short variant that CPU users can afford."""

    name: Literal["cached"] = "cached"
    height: int = Field(336, ge=1, description="Pixels; the aspect is not kept")
    width: int = Field(448, ge=1, description="Pixels; both sides are fitted to the patch size")
    label_stride: int = Field(8, ge=1, description="Pixels from depth to depth in training")
    steps: int = Field(300, ge=1)
    batch_size: int = Field(8, ge=1)
    lr: float = Field(3e-3, gt=0)
    weight_decay: float = Field(1e-3, ge=0)
    warmup_steps: int = Field(30, ge=0)


class Depth(Column):
    """How well a linear map of patch tokens tells the distance of every pixel.

    BatchNorm and a 1x1 convolution to `bins` depths on the last, normalized patch tokens of the
    encoder in eval mode; depth = sum of bins weighted by (relu + 0.1), normalized; SigLoss; the
    last iterate. Errors are computed for each image over its known pixels, in NYUv2's 480 x 640
    images those of Eigen's crop, and averaged over images.
    """

    kind: Literal["depth"] = "depth"
    protocol: str = _PROTOCOL
    domain: Domain = "dense"
    data: DepthData
    variant: Annotated[OnlineDepth | CachedDepth, Field(discriminator="name")] = OnlineDepth()
    bins: int = Field(256, ge=2)
    min_depth: float = Field(0.001, gt=0, description="Metres")
    max_depth: float = Field(10.0, gt=0, description="Metres")
    seeds: int = Field(3, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, given: Any) -> Any:
        return with_variant(given, online=_PROTOCOL, cached="linear-depth/cached-v1")

    def open(self, root: Path) -> tuple[DepthImages, DepthImages]:
        """(train, test), checked."""
        train, test = self.data.open(root)
        check_apart(train, test)
        return train, test

    def run(self, data: tuple[DepthImages, DepthImages], judged: Judged) -> dict[str, Outcome]:
        """One probe a seed; all of them judge an image together, so that it is encoded once."""
        train, test = data
        floor = self._mean_depth(train)  # first, since it tells a wrong scale
        if isinstance(self.variant, OnlineDepth):
            found, details = self._online(self.variant, train, test, judged)
        else:
            found, details = self._cached(self.variant, train, test, judged)
        sums = np.zeros((self.seeds + 1, len(test), len(METRICS), 2))
        for index, maps in enumerate(found):
            truth = test.depth(index)
            for which, depth in enumerate([*maps, torch.full((1, 1), floor)]):
                predicted = upsampled(depth, truth.shape)
                predicted = predicted.clamp(self.min_depth, self.max_depth)
                errors = depth_errors(
                    predicted.cpu().numpy(), truth, self.min_depth, self.max_depth
                )
                if errors is not None:
                    sums[which, index, :, 0], sums[which, index, :, 1] = errors, 1
        names = [test.name(index) for index in range(len(test))]
        measures = {
            "rmse": Measure("mean", names, sums[:-1, :, 0], higher_is_better=False, unit="m"),
            "abs_rel": Measure("mean", names, sums[:-1, :, 1], higher_is_better=False),
            "delta1": Measure("mean", names, sums[:-1, :, 2], 100.0, unit="%"),
        }
        return {
            "": Outcome(
                "rmse",
                measures,
                floors={"mean depth": Measure("mean", names, sums[-1:, :, 0]).value},
                details={
                    **details,
                    "train_images": len(train),
                    "images": len(test),
                    "mean_depth_m": floor,
                    "without_depth": int((sums[-1, :, 0, 1] == 0).sum()),
                },
            )
        }

    def depth(self, logits: Tensor) -> Tensor:
        """Metres `[B, h, w]` of the probe's outputs `[B, bins, h, w]`."""
        return depth_from_bins(logits, self.min_depth, self.max_depth)

    def _loss(self, logits: Tensor, truth: Tensor, warming_up: bool) -> Tensor:
        depth = upsampled(self.depth(logits), (truth.shape[-2], truth.shape[-1]))
        known = (truth > self.min_depth) & (truth <= self.max_depth)
        return sig_loss(depth[known], truth[known], warming_up)

    def _mean_depth(self, images: DepthImages) -> float:
        """Metres: mean over the known pixels of at most 500 depths spread over the set."""
        count = min(len(images), _COUNTED)
        total, pixels = 0.0, 0
        for number in range(count):
            depth = images.depth(number * len(images) // count)
            known = depth[(depth > self.min_depth) & (depth < self.max_depth)]
            total, pixels = total + float(known.sum(dtype=np.float64)), pixels + known.size
        if not pixels:
            raise InputError(
                f"depth: no training pixel lies in {self.min_depth:g} to {self.max_depth:g} m: "
                "correct depth_scale"
            )
        return total / pixels

    def _online(
        self, settings: OnlineDepth, train: DepthImages, test: DepthImages, judged: Judged
    ) -> tuple[Iterator[list[Tensor]], dict[str, Any]]:
        height, width = (fitting_side(judged.encoder, side) for side in settings.crop)

        def sample(index: int, random: np.random.Generator) -> tuple[Tensor, Tensor]:
            image, depth = readable(train, index), train.depth(index)
            try:
                return depth_crop(image, depth, random, settings, height, width)
            except TooSmall:
                raise InputError(
                    f"{train.name(index)} is smaller than the crop {height} x {width}: set "
                    "variant.crop"
                ) from None

        probes = [
            fit_online(
                judged,
                train,
                sample,
                lambda logits, truth, step: self._loss(
                    logits, truth, step < settings.loss_warmup_steps
                ),
                outputs=self.bins,
                steps=settings.steps,
                batch_size=settings.batch_size,
                rate=lambda step: learning_rate(step, settings),
                betas=lambda step: (beta1(step, settings), settings.beta2),
                weight_decay=settings.weight_decay,
                seed=seed,
                clip=settings.clip,
            )
            for seed in range(self.seeds)
        ]

        def maps() -> Iterator[list[Tensor]]:
            for _, image in ahead(test, judged):
                yield self._whole(probes, judged, image)

        return maps(), {"height": height, "width": width}

    @torch.no_grad()
    def _whole(self, probes: list[LinearProbe], judged: Judged, image: Image.Image) -> list[Tensor]:
        """Metres `[H, W]` of a whole image by each probe: mean of the image and its mirror."""
        sides = [_next_multiple(side, judged.encoder.patch_size) for side in image.size[::-1]]
        top, left = (sides[0] - image.height) // 2, (sides[1] - image.width) // 2
        padded = Image.new("RGB", (sides[1], sides[0]), mean_colour(judged.encoder))
        padded.paste(image, (left, top))
        pixels = v2.functional.pil_to_tensor(padded)
        tokens = judged.features(torch.stack([pixels, pixels.flip(-1)])).patches
        found = []
        for probe in probes:
            one, mirrored = upsampled(self.depth(probe(tokens)), (sides[0], sides[1]))
            both = (one + mirrored.flip(-1)) / 2
            found.append(both[top : top + image.height, left : left + image.width])
        return found

    def _cached(
        self, settings: CachedDepth, train: DepthImages, test: DepthImages, judged: Judged
    ) -> tuple[Iterator[list[Tensor]], dict[str, Any]]:
        height = fitting_side(judged.encoder, settings.height)
        width = fitting_side(judged.encoder, settings.width)
        view = View(height, width, "squash")
        stride = settings.label_stride
        coarse = View(max(height // stride, 1), max(width // stride, 1), "squash")
        truth = torch.stack([coarse.depth(train.depth(index)) for index in range(len(train))])
        tokens = judged.features.patches(train, view)
        probes = [
            fit_cached(
                tokens,
                lambda logits, chosen: self._loss(logits, truth[chosen].to(logits.device), False),
                outputs=self.bins,
                steps=settings.steps,
                batch_size=settings.batch_size,
                lr=settings.lr,
                weight_decay=settings.weight_decay,
                warmup_steps=settings.warmup_steps,
                seed=seed,
                device=judged.device,
            )
            for seed in range(self.seeds)
        ]
        seen = judged.features.patches(test, view)

        @torch.no_grad()
        def maps() -> Iterator[list[Tensor]]:
            for one in seen.split(1):
                given = one.to(judged.device).float()
                yield [self.depth(probe(given))[0] for probe in probes]

        return maps(), {"height": height, "width": width}


def depth_from_bins(logits: Tensor, lowest: float, highest: float) -> Tensor:
    """Metres `[B, h, w]`: bins `linspace(lowest, highest)` weighted by relu(logits) + 0.1."""
    weights = logits.relu() + 0.1
    bins = torch.linspace(lowest, highest, logits.shape[1], device=logits.device)
    return torch.einsum("bchw,c->bhw", weights, bins) / weights.sum(1)


def sig_loss(predicted: Tensor, truth: Tensor, warming_up: bool = False) -> Tensor:
    """sqrt(var(g) + 0.15 mean(g)^2), g = log(predicted + 1e-3) - log(truth + 1e-3).

    Args:
        predicted, truth: metres `[P]` of all known pixels of the batch; var is unbiased.
        warming_up: the variance is left out.
    """
    if len(truth) < 2:  # no variance; a batch without depths
        return predicted.sum() * 0
    g = torch.log(predicted + 1e-3) - torch.log(truth + 1e-3)
    squared = 0.15 * g.mean() ** 2 + (0 if warming_up else g.var())
    return squared if squared <= 0 else torch.sqrt(squared)  # a root has no gradient at 0


def upsampled(depth: Tensor, size: tuple[int, int]) -> Tensor:
    """Depths `[..., h, w]`, bilinearly at `size`."""
    flat = depth.reshape(-1, 1, *depth.shape[-2:])
    return F.interpolate(flat, size, mode="bilinear").reshape(*depth.shape[:-2], *size)


def depth_errors(
    predicted: NDArray[np.float32], truth: NDArray[np.float32], lowest: float, highest: float
) -> Array | None:
    """RMSE (m), absolute relative error and delta < 1.25 of one image `[H, W]`.

    Over pixels with lowest < truth < highest, in a 480 x 640 image those of Eigen's crop. None if
    there are none.
    """
    known = (truth > lowest) & (truth < highest)
    if truth.shape == NYU_SIZE:
        inside = np.zeros_like(known)
        inside[EIGEN] = True
        known &= inside
    if not known.any():
        return None
    p, t = predicted[known].astype(np.float64), truth[known].astype(np.float64)
    ratio = np.maximum(p / t, t / p)
    rmse = math.sqrt(np.mean((p - t) ** 2))
    return np.array([rmse, np.mean(np.abs(p - t) / t), np.mean(ratio < 1.25)])


def learning_rate(step: int, settings: OnlineDepth) -> float:
    """The released code's schedule: half a cosine over all steps, times a linear warm-up.

    Since it falls during the warm-up too, the largest rate is below `lr`. In the warm-up a small
    constant is added; after it the cosine is one step ahead.
    """
    if step < settings.warmup_steps:
        falling = cosine(step, settings.steps, settings.lr, 0.0)
        return settings.warmup_start * settings.lr + falling * step / settings.warmup_steps
    return cosine(step + 1, settings.steps, settings.lr, settings.final_lr)


def beta1(step: int, settings: OnlineDepth) -> float:
    """AdamW's first beta: 0 in the warm-up, then on a cosine between the two of `settings`."""
    if step < settings.warmup_steps:
        return 0.0
    share = (step - settings.warmup_steps) / max(settings.steps - settings.warmup_steps, 1)
    low, high = settings.beta1
    return high + (low - high) * (1 + math.cos(math.pi * share)) / 2


def _next_multiple(side: int, patch: int) -> int:
    return -(-side // patch) * patch
