"""Monocular depth by a linear probe on frozen patch tokens (paper appendix C.4)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field, model_validator
from torch import Tensor
from torchvision.transforms import v2

from openeupe.data import View
from openeupe.datasets.depths import DepthData
from openeupe.datasets.interfaces import DepthImages, check_apart
from openeupe.errors import InputError
from openeupe.evaluation.benchmark import Benchmark, Domain, EvaluatedEncoder
from openeupe.evaluation.crops import NYU_SIZE, DepthCrops, TooSmall, depth_crop
from openeupe.evaluation.features import fitting_resolution, mean_colour, readable
from openeupe.evaluation.measure import Array, Measure, Outcome
from openeupe.evaluation.variants import Answers, CachedFit, ahead, fit_heads, with_variant
from openeupe.heads.depth import DepthHead, DepthHeadSettings, upsampled
from openeupe.heads.fitting import augmented_batches
from openeupe.heads.schedule import half_cosine, learning_rates
from openeupe.heads.settings import BatchSize, FitSettings, Rate, Steps, WarmupSteps

METRICS = ("rmse", "abs_rel", "delta1")
EIGEN = (slice(45, 471), slice(41, 601))  # rows, columns of a 480 x 640 image that are evaluated
_PROTOCOL = "nyuv2-linear/eupe-v2"
_COUNTED = 500  # training depths that give the baselines
Data = tuple[DepthImages, DepthImages]  # train, test


class OnlineDepth(DepthCrops, FitSettings):
    """NYUv2's linear protocol: augmented images, evaluated whole with their mirror images.

    `crop` is fitted to the patch size (patch 14: 420 x 546).
    """

    name: Literal["online"] = "online"
    steps: Steps = 38_400
    batch_size: BatchSize = 16
    lr: Rate = Field(3e-4, description="Of the cosine's start; 2.253e-4 is the most reached")
    final_lr: float = Field(1.2e-8, ge=0)
    beta1: tuple[float, float] = Field((0.85, 0.95), description="0 in the warm-up, then from, to")
    beta2: float = 0.99
    warmup_steps: WarmupSteps = 12_800
    warmup_start: float = Field(1e-3, ge=0, description="Times lr, added during the warm-up")
    clip: float = Field(35.0, gt=0, description="Largest norm of the gradient")
    loss_warmup_steps: int = Field(100, ge=0, description="SigLoss without its variance term")

    def rates(self) -> Iterator[float]:
        """As in the released code."""
        more = {"warmup_start": self.warmup_start, "final_lr": self.final_lr}
        return learning_rates(self.steps, self.lr, self.warmup_steps, form="nyuv2", **more)

    def betas_at(self, step: int) -> tuple[float, float]:
        """AdamW's betas at a step. The first one is 0 in the warm-up, then on a cosine between the
        two of `beta1`.
        """
        if step < self.warmup_steps:
            return 0.0, self.beta2
        share = (step - self.warmup_steps) / max(self.steps - self.warmup_steps, 1)
        return half_cosine(share, 1, *self.beta1), self.beta2

    def clip_norm(self) -> float:
        """`clip`."""
        return self.clip

    def maps(
        self, evaluated: EvaluatedEncoder, make: Callable[[], DepthHead], data: Data, seeds: int
    ) -> Answers:
        """Metres `[H, W]` of every test image by the head of each seed."""
        (train, test), features = data, evaluated.features
        height, width = (fitting_resolution(evaluated.encoder, length) for length in self.crop)

        def sample(index: int, random: np.random.Generator) -> tuple[Tensor, Tensor]:
            image, depth = readable(train, index), train.depth(index)
            try:
                return depth_crop(image, depth, random, self, height, width)
            except TooSmall:
                raise InputError(
                    f"{train.name(index)} is smaller than the crop {height} x {width}: set "
                    "variant.crop"
                ) from None

        heads = fit_heads(
            evaluated,
            make,
            partial(augmented_batches, len(train), sample, features, features.workers, self),
            lambda head, tokens, targets, step: head.loss(
                tokens, *targets, warming_up=step < self.loss_warmup_steps
            ),
            self,
            range(seeds),
        )
        found = (whole_depths(heads, evaluated, image) for image in ahead(test, evaluated))
        return found, {"height": height, "width": width}


class CachedDepth(CachedFit):
    """Features once per image, at one size: the short variant that CPU users can afford."""

    height: int = Field(336, ge=1, description="Pixels; the aspect is not kept")
    lr: Rate = 3e-3

    def maps(
        self, evaluated: EvaluatedEncoder, make: Callable[[], DepthHead], data: Data, seeds: int
    ) -> Answers:
        """Metres `[h, w]` of every test image by the head of each seed."""
        train, _ = data

        def label(view: View, index: int) -> Tensor:
            return view.depth(train.depth(index))

        return self.answers(evaluated, make, label, DepthHead.loss, DepthHead.depth, data, seeds)


class Depth(Benchmark):
    """Depth estimation with a linear map of patch tokens.

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
    def _short_form(cls, given: object) -> object:
        return with_variant(given, online=_PROTOCOL, cached="linear-depth/cached-v1")

    def open(self, root: Path) -> Data:
        """(train, test), checked."""
        train, test = self.data.open(root)
        check_apart(train, test)
        return train, test

    def run(self, data: Data, evaluated: EvaluatedEncoder) -> dict[str, Outcome]:
        """One head a seed. All of them read an image together, so that it is encoded once."""
        train, test = data
        baseline = self._mean_depth(train)  # first, since it checks the scale
        settings = DepthHeadSettings(
            width=evaluated.encoder.patch_dim,
            bins=self.bins,
            min_depth=self.min_depth,
            max_depth=self.max_depth,
        )
        make = partial(DepthHead, settings)
        found, details = self.variant.maps(evaluated, make, data, self.seeds)
        sums = np.zeros((self.seeds + 1, len(test), len(METRICS), 2))
        for index, maps in enumerate(found):
            truth = test.depth(index)
            for which, depth in enumerate([*maps, torch.full((1, 1), baseline)]):
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
                baselines={"mean depth": Measure("mean", names, sums[-1:, :, 0]).value},
                details={
                    **details,
                    "train_images": len(train),
                    "images": len(test),
                    "mean_depth_m": baseline,
                    "without_depth": int((sums[-1, :, 0, 1] == 0).sum()),
                },
            )
        }

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
                f"depth: no training pixel is in {self.min_depth:g} to {self.max_depth:g} m: "
                "correct depth_scale"
            )
        return total / pixels


@torch.no_grad()
def whole_depths(
    heads: list[DepthHead], evaluated: EvaluatedEncoder, image: Image.Image
) -> list[Tensor]:
    """Metres `[H, W]` of a whole image by each head: mean of the image and its mirror."""
    sides = [_next_multiple(length, evaluated.encoder.patch_size) for length in image.size[::-1]]
    top, left = (sides[0] - image.height) // 2, (sides[1] - image.width) // 2
    padded = Image.new("RGB", (sides[1], sides[0]), mean_colour(evaluated.encoder))
    padded.paste(image, (left, top))
    pixels = v2.functional.pil_to_tensor(padded)
    tokens = evaluated.features(torch.stack([pixels, pixels.flip(-1)])).patches
    found = []
    for head in heads:
        one, mirrored = upsampled(head.depth(tokens), (sides[0], sides[1]))
        both = (one + mirrored.flip(-1)) / 2
        found.append(both[top : top + image.height, left : left + image.width])
    return found


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


def _next_multiple(resolution: int, patch: int) -> int:
    return -(-resolution // patch) * patch
