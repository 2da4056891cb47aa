"""Fidelity: R2 of experts' tokens predicted linearly, on held-out images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from openeupe.config import Config
from openeupe.data import Augment, AugmentConfig, resize
from openeupe.datasets.classification import HeldoutFolder
from openeupe.datasets.image_folder import ImageFolder
from openeupe.encoders import Encoder, Tokens, create, load
from openeupe.encoders.encoder import Arguments
from openeupe.evaluation.benchmark import Benchmark, Domain, EvaluatedEncoder
from openeupe.evaluation.features import Features, Precision, readable
from openeupe.evaluation.measure import Outcome, joined
from openeupe.evaluation.ridge import RidgeReadout
from openeupe.identity import encoder_identity
from openeupe.limits import RESOLUTION
from openeupe.names import Name
from openeupe.progress import Progress, tracked
from openeupe.seeds import derive_seed

KINDS = ("cls", "patches")  # of tokens, in the names of outcomes
_MAX_ROWS = 6144  # patch tokens used to fit a readout
_MIN_STD = 0.01  # of a coordinate of an expert, as a share of the RMS over coordinates


class Expert(Config):
    """An expert whose tokens are predicted. encoder: as `openeupe.load` takes it."""

    encoder: str
    resolution: int = Field(ge=1, le=RESOLUTION, description="Pixels of its crops")
    args: Arguments = Field({}, description="Arguments of an architecture with published weights")

    def load(self) -> Encoder:
        """The expert with its weights, in eval mode."""
        if self.args:
            return create(self.encoder, pretrained=True, **self.args).eval()
        return load(self.encoder)


@dataclass
class Crops:
    """Crops of images. views: uint8 `[N, 3, S, S]`. images: of each crop, the name of its image."""

    views: Tensor
    images: list[str]


@dataclass
class FidelityData:
    """Opened data of `Fidelity`: images, experts and the experts' tokens.

    crops: for training and for test; None until they are made.
    tokens: of each expert on the crops; None until they are computed.
    """

    train: ImageFolder
    test: ImageFolder
    experts: dict[str, Encoder]
    crops: tuple[Crops, Crops] | None = None
    tokens: dict[str, tuple[Tokens, Tokens]] | None = None

    @cached_property
    def identities(self) -> dict[str, str]:
        """Identity of each expert's weights."""
        return {name: encoder_identity(expert) for name, expert in self.experts.items()}


class Fidelity(Benchmark):
    """R2 of ridge readouts from an encoder's tokens to those of experts.

    There is an outcome for each expert and kind of token. A readout is fitted on crops of training
    images, frozen encoder to frozen expert, and scored on crops of held-out images. 1 is a perfect
    prediction, 0 is no better than the mean, less than 0 is worse than it. Because every encoder
    gets its own readout, an untrained one gets a fair chance too. The row of an expert itself
    shows what so few images allow; it has only the first resolution. An encoder's patch grid is
    brought to the expert's size (bilinear, or area when it shrinks). The experts' tokens are
    standardized by mean and standard deviation of the training crops. Crops are random (scale,
    ratio and flip as in training, no colour changes) and the same for all encoders.
    """

    fills_several: ClassVar[bool] = True

    kind: Literal["fidelity"] = "fidelity"
    protocol: str = "fidelity/v1"
    domain: Domain = "experts"
    data: HeldoutFolder
    experts: dict[Name, Expert] = Field(min_length=1)
    expert_precision: Precision = Field("fp32", description="Of the experts; bf16 is autocast")
    resolution: tuple[int, ...] = Field(
        min_length=1, description="Pixels of the encoder's crops. The first one is in tables"
    )
    crop: int = Field(256, ge=1, le=RESOLUTION, description="Pixels of the crops before resizing")
    train_crops: int = Field(288, ge=1, description="About so many, the same number of each image")
    test_crops: int = Field(96, ge=1, description="About so many, the same number of each image")

    def open(self, root: Path) -> FidelityData:
        """Images and experts."""
        train, test = self.data.images(root)
        return FidelityData(train, test, {name: one.load() for name, one in self.experts.items()})

    def identities(self, data: FidelityData) -> list[str]:
        """Identities of both parts and of the experts' weights."""
        return [data.train.identity, data.test.identity, *data.identities.values()]

    def run(self, data: FidelityData, evaluated: EvaluatedEncoder) -> dict[str, Outcome]:
        """An outcome for each expert and kind, a metric for each resolution."""
        crops, targets = self._targets(data, evaluated)
        train, test = crops
        number = {name: place for place, name in enumerate(dict.fromkeys(train.images))}
        groups = torch.tensor([number[name] for name in train.images])
        own = [k for k, one in data.identities.items() if one == evaluated.identity.identity]
        found: dict[str, dict[str, Tensor]] = {}
        for resolution in self.resolution[:1] if own else self.resolution:
            computed = (data.tokens or {}).get(own[0]) if own else None
            if computed is None or self.experts[own[0]].resolution != resolution:
                looked = (tokens_of(evaluated.features, some, resolution) for some in crops)
                computed = next(looked), next(looked)
            sums = fidelity(computed, targets, groups)
            for name, one in sums.items():
                found.setdefault(name, {})[f"r2@{resolution}"] = one
        return {
            name: Outcome(
                f"r2@{self.resolution[0]}",
                {
                    metric: joined("r2", test.images, sums[None].double().numpy())
                    for metric, sums in metrics.items()
                },
                baselines={"training mean": 0.0},
                details={"train_crops": len(train.images), "test_crops": len(test.images)},
            )
            for name, metrics in found.items()
        }

    def _targets(
        self, data: FidelityData, evaluated: EvaluatedEncoder
    ) -> tuple[tuple[Crops, Crops], dict[str, tuple[Tokens, Tokens]]]:
        """The crops and the experts' standardized tokens, computed for the first encoder only."""
        progress = evaluated.progress
        if data.crops is None:
            data.crops = (
                crops_of(data.train, self.train_crops, self.crop, progress),
                crops_of(data.test, self.test_crops, self.crop, progress),
            )
        if data.tokens is None:
            data.tokens = {}
            for name, expert in data.experts.items():
                features = Features(
                    expert.to(evaluated.device),
                    precision=self.expert_precision,
                    batch_size=evaluated.features.batch_size,
                    progress=progress,
                )
                at = self.experts[name].resolution
                train, test = (tokens_of(features, some, at) for some in data.crops)
                data.tokens[name] = train, test
        return data.crops, {name: standardized(*tokens) for name, tokens in data.tokens.items()}


def crops_of(images: ImageFolder, count: int, resolution: int, progress: Progress) -> Crops:
    """About `count` random crops, the same number of each image."""
    augment = Augment(AugmentConfig(jitter=0, blur=0, solarize=0), resolution)
    views, names = [], []
    for index in tracked(range(len(images)), progress, "cropping images", len(images)):
        image = readable(images, index)
        for crop in range(max(1, round(count / len(images)))):
            views.append(augment(image, derive_seed("fidelity crops", index, crop)))
            names.append(images.name(index))
    return Crops(torch.stack(views), names)


def tokens_of(features: Features, crops: Crops, resolution: int) -> Tokens:
    """Float32 CPU tokens of crops that are resized to `resolution`."""
    title = f"{features.encoder.name} looks at {resolution} px"
    batches = crops.views.split(features.batch_size)
    device = features.encoder.mean.device
    cls, patches = [], []
    for some in tracked(batches, features.progress, title, len(batches)):
        tokens = features(resize(some.to(device), resolution))
        cls.append(tokens.cls.cpu())
        patches.append(tokens.patches.cpu())
    return Tokens(torch.cat(cls), torch.cat(patches))


def standardized(train: Tokens, test: Tokens) -> tuple[Tokens, Tokens]:
    """Standardize tokens by mean and standard deviation of the training ones."""

    def scaled(train: Tensor, test: Tensor, over: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        mean, std = train.mean(over, keepdim=True), train.std(over, correction=0, keepdim=True)
        # Nearly constant coordinates (dead channels) would be amplified to noise.
        std = std.clamp_min(_MIN_STD * float(std.square().mean().sqrt())).clamp_min(1e-12)
        return (train - mean) / std, (test - mean) / std

    cls = scaled(train.cls, test.cls, (0,))
    patches = scaled(train.patches, test.patches, (0, 2, 3))
    return Tokens(cls[0], patches[0]), Tokens(cls[1], patches[1])


def fidelity(
    tokens: tuple[Tokens, Tokens],
    targets: Mapping[str, tuple[Tokens, Tokens]],
    groups: Tensor,
) -> dict[str, Tensor]:
    """`RidgeReadout.sums` `[M, 2]` of each test view, by `EXPERT-cls` and `EXPERT-patches`.

    Args:
        tokens: the encoder's, of the views for training and for test.
        targets: each expert's standardized tokens of the same views.
        groups: `[N]` image of each training view, any integers; every fifth image chooses the
            shrinkage.
    """
    train, test = tokens
    found: dict[str, Tensor] = {}
    cls_readout = RidgeReadout(train.cls, groups)
    patch_readouts: dict[tuple[int, ...], tuple[RidgeReadout, Tensor]] = {}
    for name, (target, test_target) in targets.items():
        found[f"{name}-cls"] = cls_readout.sums(target.cls, test.cls, test_target.cls)
        size = tuple(target.patches.shape[-2:])
        if size not in patch_readouts:
            rows = _rows(train.patches, size)
            keep = torch.arange(0, len(rows), max(len(rows) // _MAX_ROWS, 1))
            image = groups.repeat_interleave(size[0] * size[1])
            patch_readouts[size] = (RidgeReadout(rows[keep], image[keep]), keep)
        readout, keep = patch_readouts[size]
        sums = readout.sums(
            _rows(target.patches, size)[keep],
            _rows(test.patches, size),
            _rows(test_target.patches, size),
        )
        found[f"{name}-patches"] = sums.view(len(test.cls), -1, 2).sum(dim=1)
    return found


def _rows(grid: Tensor, size: tuple[int, ...]) -> Tensor:
    """`[N, D, h, w]` at another grid size, as rows `[N * h' * w', D]`."""
    if grid.shape[-2] > size[0]:
        grid = F.interpolate(grid, size=size, mode="area")
    elif grid.shape[-2:] != size:
        grid = F.interpolate(grid, size=size, mode="bilinear", align_corners=False)
    return grid.flatten(2).transpose(1, 2).flatten(0, 1)
