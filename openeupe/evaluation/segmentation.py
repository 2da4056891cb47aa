"""Semantic segmentation by a linear probe on frozen patch tokens (paper appendix C.3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from PIL import Image
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import v2

from openeupe.data import View
from openeupe.datasets.dense_files import IGNORE
from openeupe.datasets.interfaces import MaskedImages, check_apart
from openeupe.datasets.masks import MaskData
from openeupe.errors import InputError
from openeupe.evaluation.benchmark import Benchmark, Domain, EvaluatedEncoder
from openeupe.evaluation.crops import LabelledCrops, labelled_crop, resized
from openeupe.evaluation.features import fitting_resolution, mean_colour, readable
from openeupe.evaluation.measure import Array, Measure, Outcome, class_mean
from openeupe.evaluation.variants import Answers, CachedFit, ahead, fit_heads, with_variant
from openeupe.heads.fitting import augmented_batches
from openeupe.heads.schedule import learning_rates
from openeupe.heads.segmentation import SegmentationHead, SegmentationHeadSettings, best_classes
from openeupe.heads.settings import BatchSize, FitSettings, Rate, Steps, WarmupSteps

_PROTOCOL = "ade20k-linear/eupe-v2"
_COUNTED = 500  # training masks that give the most frequent class
Data = tuple[MaskedImages, MaskedImages]  # train, test


class OnlineSegmentation(LabelledCrops, FitSettings):
    """ADE20K's linear protocol: augmented images, evaluated by sliding windows.

    Sizes are those of an encoder whose patches fit `crop`; for others (patch 14) crop, short side
    and stride grow by the same factor to the nearest fitting crop (518).
    """

    name: Literal["online"] = "online"
    steps: Steps = 40_000
    batch_size: BatchSize = 16
    lr: Rate = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    warmup_steps: WarmupSteps = 1500
    warmup_start: float = Field(1e-6, ge=0, description="Factor of the first step's rate")
    stride: int = Field(341, ge=1, description="Pixels from window to window")
    dropout: float = Field(0.1, ge=0, lt=1, description="Share of channels dropped in training")

    @model_validator(mode="after")
    def _window_fits(self) -> OnlineSegmentation:
        if not self.stride <= self.crop <= self.short:
            raise ValueError("sizes must be stride <= crop <= short")
        return self

    def rates(self) -> Iterator[float]:
        """As in the released code."""
        start = self.warmup_start
        return learning_rates(
            self.steps, self.lr, self.warmup_steps, form="ade20k", warmup_start=start
        )

    def betas_at(self, step: int) -> tuple[float, float]:
        """The same at every step."""
        return self.betas

    def logits(
        self,
        evaluated: EvaluatedEncoder,
        make: Callable[[], SegmentationHead],
        data: Data,
        seeds: int,
    ) -> Answers:
        """Logits `[C, H, W]` of every test image by the head of each seed."""
        (train, test), features = data, evaluated.features
        crop = fitting_resolution(evaluated.encoder, self.crop)
        short = max(round(self.short * crop / self.crop), crop)
        stride = round(self.stride * crop / self.crop)
        ground = mean_colour(evaluated.encoder)

        def sample(index: int, random: np.random.Generator) -> tuple[Tensor, Tensor]:
            image, mask = readable(train, index), train.mask(index)
            return labelled_crop(image, mask, random, self, crop, short, ground)

        heads = fit_heads(
            evaluated,
            make,
            partial(augmented_batches, len(train), sample, features, features.workers, self),
            lambda head, tokens, targets, _: head.loss(tokens, *targets, over_all=True),
            self,
            range(seeds),
        )

        def found() -> Iterator[list[Tensor]]:
            for image in ahead(test, evaluated):
                image = image.resize(resized(image.size, short), Image.Resampling.BILINEAR)
                pixels = v2.functional.pil_to_tensor(image)
                yield sliding_logits(heads, evaluated, pixels, crop, stride)

        return found(), {"crop": crop, "short": short, "stride": stride}


class CachedSegmentation(CachedFit):
    """Features once per image, at one size: the short variant that CPU users can afford."""

    dropout: float = Field(0.0, ge=0, lt=1)

    def logits(
        self,
        evaluated: EvaluatedEncoder,
        make: Callable[[], SegmentationHead],
        data: Data,
        seeds: int,
    ) -> Answers:
        """Logits `[C, h, w]` of every test image by the head of each seed."""
        train, _ = data

        def label(view: View, index: int) -> Tensor:
            return view.mask(train.mask(index))

        return self.answers(
            evaluated, make, label, SegmentationHead.loss, SegmentationHead.forward, data, seeds
        )


class Segmentation(Benchmark):
    """Semantic segmentation with a linear map of patch tokens.

    BatchNorm and a 1x1 convolution on the last, normalized patch tokens of the encoder in eval
    mode; cross-entropy on bilinearly upsampled logits; the last iterate. At each mask's own
    resolution: mean over classes of (intersections summed over the set) / (unions summed over the
    set); a class that neither masks nor predictions have is skipped.
    """

    kind: Literal["segmentation"] = "segmentation"
    protocol: str = _PROTOCOL
    domain: Domain = "dense"
    data: MaskData
    variant: Annotated[OnlineSegmentation | CachedSegmentation, Field(discriminator="name")] = (
        OnlineSegmentation()
    )
    seeds: int = Field(3, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, given: object) -> object:
        return with_variant(given, online=_PROTOCOL, cached="linear-segmentation/cached-v1")

    def open(self, root: Path) -> Data:
        """(train, test), checked."""
        train, test = self.data.open(root)
        if train.classes != test.classes:
            raise InputError("segmentation: train and test masks have other classes: correct data")
        check_apart(train, test)
        return train, test

    def run(self, data: Data, evaluated: EvaluatedEncoder) -> dict[str, Outcome]:
        """One head a seed. All of them read an image together, so that it is encoded once."""
        train, test = data
        names = [test.name(index) for index in range(len(test))]
        classes = len(test.classes)
        sums = np.zeros((self.seeds, len(test), 2 * classes))
        right = np.zeros((self.seeds, len(test), 2))
        truths = np.zeros((len(test), classes))
        settings = SegmentationHeadSettings(
            width=evaluated.encoder.patch_dim,
            classes=tuple(train.classes),
            dropout=self.variant.dropout,
        )
        make = partial(SegmentationHead, settings)
        found, details = self.variant.logits(evaluated, make, data, self.seeds)
        for index, logits in enumerate(found):
            truth = torch.from_numpy(test.mask(index)).to(evaluated.device)
            for seed, each in enumerate(logits):
                predicted = best_classes(each, (truth.shape[0], truth.shape[1]))
                sums[seed, index] = areas(predicted, truth, classes)
                right[seed, index, 0] = sums[seed, index, :classes].sum()
            truths[index] = _histogram(truth, classes)
        right[..., 1] = truths.sum(1)
        common = _commonest(train, classes)
        return {
            "": Outcome(
                "miou",
                {
                    "miou": Measure("class_mean", names, sums, 100.0, unit="%"),
                    "pixel_accuracy": Measure("mean", names, right, 100.0, unit="%"),
                },
                baselines={"most frequent class": _constant_miou(truths, common)},
                details={
                    **details,
                    "train_images": len(train),
                    "images": len(test),
                    "classes": classes,
                    "most_frequent_class": test.classes[common],
                    "iou": _per_class(sums, test.classes),
                },
            )
        }


def areas(predicted: Tensor, truth: Tensor, classes: int) -> Array:
    """`[2 * classes]`: pixels in the intersection, then in the union, of each class.

    Args:
        predicted: `[H, W]` class numbers. truth: `[H, W]` uint8; 255 is left out.
    """
    valid = truth != IGNORE
    predicted, truth = predicted[valid].long(), truth[valid].long()
    common = torch.bincount(truth[predicted == truth], minlength=classes)
    both = torch.bincount(predicted, minlength=classes) + torch.bincount(truth, minlength=classes)
    return torch.cat([common, both - common]).cpu().numpy().astype(np.float64)


def windows(height: int, width: int, crop: int, stride: int) -> list[tuple[int, int]]:
    """(top, left) of the windows over an image. Those at the edges are shifted inside."""

    def starts(length: int) -> list[int]:
        count = max(length - crop + stride - 1, 0) // stride + 1
        return [max(min(i * stride, length - crop), 0) for i in range(count)]

    return [(top, left) for top in starts(height) for left in starts(width)]


@torch.no_grad()
def sliding_logits(
    heads: list[SegmentationHead],
    evaluated: EvaluatedEncoder,
    pixels: Tensor,
    crop: int,
    stride: int,
) -> list[Tensor]:
    """Logits `[C, H, W]` of each head for uint8 `[3, H, W]`, averaged where windows overlap."""
    height, width = pixels.shape[1:]
    corners = windows(height, width, crop, stride)
    views = torch.stack([pixels[:, y : y + crop, x : x + crop] for y, x in corners])
    tokens = torch.cat([evaluated.features(part).patches for part in views.split(16)])
    seen = torch.zeros(height, width, device=tokens.device)
    for y, x in corners:
        seen[y : y + crop, x : x + crop] += 1
    found = []
    for head in heads:
        logits = F.interpolate(head(tokens), (crop, crop), mode="bilinear")
        total = logits.new_zeros(logits.shape[1], height, width)
        for (y, x), window in zip(corners, logits, strict=True):
            total[:, y : y + crop, x : x + crop] += window
        found.append(total / seen)
    return found


def _histogram(truth: Tensor, classes: int) -> Array:
    counts = torch.bincount(truth[truth != IGNORE].long(), minlength=classes)
    return counts.cpu().numpy().astype(np.float64)


def _commonest(images: MaskedImages, classes: int) -> int:
    """The most frequent class, in at most 500 masks spread over the set."""
    count = min(len(images), _COUNTED)
    chosen = [number * len(images) // count for number in range(count)]
    total = sum(_histogram(torch.from_numpy(images.mask(i)), classes) for i in chosen)
    return int(np.argmax(total))


def _constant_miou(truths: Array, common: int) -> float:
    """mIoU in % of always predicting `common`; truths: `[N, C]` pixels of each class."""
    total = truths.sum(0)
    common_only = np.zeros_like(total)
    common_only[common] = total[common]
    unions = total.copy()
    unions[common] = total.sum()
    return float(100 * class_mean(np.concatenate([common_only, unions])))


def _per_class(sums: Array, classes: list[str]) -> dict[str, float | None]:
    """IoU in % of each class, of the seeds' mean. None for one that never occurs."""
    above, below = np.split(sums.sum(1), 2, axis=-1)
    return {
        name: float(100 * np.mean(above[:, k] / below[:, k])) if below[:, k].all() else None
        for k, name in enumerate(classes)
    }
