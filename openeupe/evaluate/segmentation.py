"""Semantic segmentation by a linear probe on frozen patch tokens (paper appendix C.3)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from PIL import Image
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import v2

from openeupe.config import Config
from openeupe.data import View
from openeupe.datasets.dense import MaskData
from openeupe.datasets.dense_files import IGNORE
from openeupe.datasets.interfaces import MaskedImages, check_apart
from openeupe.errors import InputError
from openeupe.evaluate.column import Column, Domain, Judged
from openeupe.evaluate.crops import LabelledCrops, labelled_crop, resized
from openeupe.evaluate.features import fitting_side, mean_colour, readable
from openeupe.evaluate.measure import Array, Measure, Outcome, class_mean
from openeupe.evaluate.online import ahead, cosine, fit_online, with_variant
from openeupe.evaluate.probe import LinearProbe, fit_cached

_PROTOCOL = "ade20k-linear/eupe-v2"
_COUNTED = 500  # training masks that say which class is commonest


class OnlineSegmentation(LabelledCrops):
    """ADE20K's linear protocol: each image augmented anew, judged by sliding windows.

    Sizes are those of an encoder whose patches fit `crop`; for others (patch 14) crop, short side
    and stride grow by the same factor to the nearest fitting crop (518).
    """

    name: Literal["online"] = "online"
    steps: int = Field(40_000, ge=1)
    batch_size: int = Field(16, ge=1)
    lr: float = Field(1e-3, gt=0)
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = Field(1e-3, ge=0)
    warmup_steps: int = Field(1500, ge=0)
    warmup_start: float = Field(1e-6, ge=0, description="Factor of the first step's rate")
    stride: int = Field(341, ge=1, description="Pixels from window to window")
    dropout: float = Field(0.1, ge=0, lt=1, description="Share of channels dropped in training")

    @model_validator(mode="after")
    def _window_fits(self) -> OnlineSegmentation:
        if not self.stride <= self.crop <= self.short:
            raise ValueError("sizes must be stride <= crop <= short")
        return self


class CachedSegmentation(Config):
    """Features once per image, at one size: the short variant that CPU users can afford."""

    name: Literal["cached"] = "cached"
    height: int = Field(448, ge=1, description="Pixels; the aspect is not kept")
    width: int = Field(448, ge=1, description="Pixels; both sides are fitted to the patch size")
    label_stride: int = Field(8, ge=1, description="Pixels from label to label in training")
    steps: int = Field(300, ge=1)
    batch_size: int = Field(8, ge=1)
    lr: float = Field(1e-2, gt=0)
    weight_decay: float = Field(1e-3, ge=0)
    warmup_steps: int = Field(30, ge=0)
    dropout: float = Field(0.0, ge=0, lt=1)


class Segmentation(Column):
    """How well a linear map of patch tokens says the class of every pixel.

    BatchNorm and a 1x1 convolution on the last, normalized patch tokens of the encoder in eval
    mode; cross-entropy on bilinearly upsampled logits; the last iterate. Judged at each mask's own
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
    def _short_form(cls, given: Any) -> Any:
        return with_variant(given, online=_PROTOCOL, cached="linear-segmentation/cached-v1")

    def open(self, root: Path) -> tuple[MaskedImages, MaskedImages]:
        """(train, test), checked."""
        train, test = self.data.open(root)
        if train.classes != test.classes:
            raise InputError("segmentation: train and test masks have other classes: correct data")
        check_apart(train, test)
        return train, test

    def run(self, data: tuple[MaskedImages, MaskedImages], judged: Judged) -> dict[str, Outcome]:
        """One probe a seed; all of them judge an image together, so that it is encoded once."""
        train, test = data
        names = [test.name(index) for index in range(len(test))]
        classes = len(test.classes)
        sums = np.zeros((self.seeds, len(test), 2 * classes))
        right = np.zeros((self.seeds, len(test), 2))
        truths = np.zeros((len(test), classes))
        if isinstance(self.variant, OnlineSegmentation):
            found, details = _online(self.variant, train, test, judged, self.seeds)
        else:
            found, details = _cached(self.variant, train, test, judged, self.seeds)
        for index, logits in enumerate(found):
            truth = torch.from_numpy(test.mask(index)).to(judged.device)
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
                floors={"most frequent class": _constant_miou(truths, common)},
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


def best_classes(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """`[height, width]` int64: argmax of `logits [C, h, w]` upsampled bilinearly to `size`.

    A bilinear value lies between those of its four neighbours. So a class whose largest value
    around a place is nowhere above the best class's smallest one cannot win, and is not upsampled:
    of 130 classes about ten are left.
    """
    edged = F.pad(logits[None], (1, 1, 1, 1), mode="replicate")[0]
    most, least = F.max_pool2d(edged, 2, 1), -F.max_pool2d(-edged, 2, 1)
    able = (most >= least.amax(0)).flatten(1).any(1).nonzero()[:, 0]
    finer = F.interpolate(logits[able][None], size, mode="bilinear")[0]
    return able[finer.argmax(0)]


def windows(height: int, width: int, crop: int, stride: int) -> list[tuple[int, int]]:
    """(top, left) of the windows over an image; those at the edges are shifted inside."""

    def starts(length: int) -> list[int]:
        count = max(length - crop + stride - 1, 0) // stride + 1
        return [max(min(i * stride, length - crop), 0) for i in range(count)]

    return [(top, left) for top in starts(height) for left in starts(width)]


@torch.no_grad()
def sliding_logits(
    probes: list[LinearProbe], judged: Judged, pixels: Tensor, crop: int, stride: int
) -> list[Tensor]:
    """Logits `[C, H, W]` of each probe for uint8 `[3, H, W]`, averaged where windows overlap."""
    height, width = pixels.shape[1:]
    corners = windows(height, width, crop, stride)
    views = torch.stack([pixels[:, y : y + crop, x : x + crop] for y, x in corners])
    tokens = torch.cat([judged.features(part).patches for part in views.split(16)])
    seen = torch.zeros(height, width, device=tokens.device)
    for y, x in corners:
        seen[y : y + crop, x : x + crop] += 1
    found = []
    for probe in probes:
        logits = F.interpolate(probe(tokens), (crop, crop), mode="bilinear")
        total = logits.new_zeros(logits.shape[1], height, width)
        for (y, x), window in zip(corners, logits, strict=True):
            total[:, y : y + crop, x : x + crop] += window
        found.append(total / seen)
    return found


def upsampled_loss(logits: Tensor, labels: Tensor, *, over_all: bool = False) -> Tensor:
    """Mean cross-entropy of `[B, C, h, w]` logits, upsampled to labels `[B, H, W]` (255: none).

    over_all: pixels without a label count in the mean, with a loss of 0, as in the released code.
    """
    finer = F.interpolate(logits, labels.shape[-2:], mode="bilinear")
    total = F.cross_entropy(finer, labels.long(), ignore_index=IGNORE, reduction="sum")
    if over_all:
        return total / labels.numel()
    return total / (labels != IGNORE).sum().clamp(min=1)  # a batch may hold no label at all


def learning_rate(step: int, settings: OnlineSegmentation) -> float:
    """The released code's schedule: a linear warm-up that also decays, then half a cosine.

    Its scheduler rests once, so that the first two steps have one rate; the cosine is one ahead.
    """
    step = max(step - 1, 0)
    if step < settings.warmup_steps:
        start = settings.warmup_start
        share = start + (1 - start) * step / settings.warmup_steps
        return settings.lr * share * (1 - step / settings.steps)
    return cosine(step + 1, settings.steps, settings.lr, 0.0)


Found = tuple[Iterator[list[Tensor]], dict[str, Any]]  # logits of each image, and sizes


def _online(
    settings: OnlineSegmentation,
    train: MaskedImages,
    test: MaskedImages,
    judged: Judged,
    seeds: int,
) -> Found:
    crop = fitting_side(judged.encoder, settings.crop)
    short = max(round(settings.short * crop / settings.crop), crop)
    stride = round(settings.stride * crop / settings.crop)
    ground = mean_colour(judged.encoder)

    def sample(index: int, random: np.random.Generator) -> tuple[Tensor, Tensor]:
        image, mask = readable(train, index), train.mask(index)
        return labelled_crop(image, mask, random, settings, crop, short, ground)

    probes = [
        fit_online(
            judged,
            train,
            sample,
            lambda logits, labels, _: upsampled_loss(logits, labels, over_all=True),
            outputs=len(train.classes),
            steps=settings.steps,
            batch_size=settings.batch_size,
            rate=lambda step: learning_rate(step, settings),
            betas=lambda _: settings.betas,
            weight_decay=settings.weight_decay,
            seed=seed,
            dropout=settings.dropout,
        )
        for seed in range(seeds)
    ]

    def logits() -> Iterator[list[Tensor]]:
        for _, image in ahead(test, judged):
            image = image.resize(resized(image.size, short), Image.Resampling.BILINEAR)
            pixels = v2.functional.pil_to_tensor(image)
            yield sliding_logits(probes, judged, pixels, crop, stride)

    return logits(), {"crop": crop, "short": short, "stride": stride}


def _cached(
    settings: CachedSegmentation,
    train: MaskedImages,
    test: MaskedImages,
    judged: Judged,
    seeds: int,
) -> Found:
    height = fitting_side(judged.encoder, settings.height)
    width = fitting_side(judged.encoder, settings.width)
    view = View(height, width, "squash")
    coarse = View(
        max(height // settings.label_stride, 1), max(width // settings.label_stride, 1), "squash"
    )
    labels = torch.stack([coarse.mask(train.mask(index)) for index in range(len(train))])
    tokens = judged.features.patches(train, view)
    probes = [
        fit_cached(
            tokens,
            lambda logits, chosen: upsampled_loss(logits, labels[chosen].to(logits.device)),
            outputs=len(train.classes),
            steps=settings.steps,
            batch_size=settings.batch_size,
            lr=settings.lr,
            weight_decay=settings.weight_decay,
            warmup_steps=settings.warmup_steps,
            seed=seed,
            dropout=settings.dropout,
            device=judged.device,
        )
        for seed in range(seeds)
    ]
    seen = judged.features.patches(test, view)

    @torch.no_grad()
    def logits() -> Iterator[list[Tensor]]:
        for one in seen.split(1):
            tokens = one.to(judged.device).float()
            yield [probe(tokens)[0] for probe in probes]

    return logits(), {"height": height, "width": width}


def _histogram(truth: Tensor, classes: int) -> Array:
    counts = torch.bincount(truth[truth != IGNORE].long(), minlength=classes)
    return counts.cpu().numpy().astype(np.float64)


def _commonest(images: MaskedImages, classes: int) -> int:
    """The class of most pixels, in at most 500 masks spread evenly over the set."""
    count = min(len(images), _COUNTED)
    chosen = [number * len(images) // count for number in range(count)]
    total = sum(_histogram(torch.from_numpy(images.mask(i)), classes) for i in chosen)
    return int(np.argmax(total))


def _constant_miou(truths: Array, common: int) -> float:
    """mIoU in % of always saying `common`; truths: `[N, C]` pixels of each class."""
    total = truths.sum(0)
    common_only = np.zeros_like(total)
    common_only[common] = total[common]
    unions = total.copy()
    unions[common] = total.sum()
    return float(100 * class_mean(np.concatenate([common_only, unions])))


def _per_class(sums: Array, classes: list[str]) -> dict[str, float | None]:
    """IoU in % of each class, of the seeds' mean; None for one that never occurs."""
    above, below = np.split(sums.sum(1), 2, axis=-1)
    return {
        name: float(100 * np.mean(above[:, k] / below[:, k])) if below[:, k].all() else None
        for k, name in enumerate(classes)
    }
