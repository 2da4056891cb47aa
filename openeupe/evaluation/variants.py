"""Fit heads of benchmarks: on augmented images, or on cached tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Literal

import torch
from PIL import Image
from pydantic import Field
from torch import Tensor

from openeupe.data import View
from openeupe.data.ahead import batched_ahead
from openeupe.datasets.interfaces import Images
from openeupe.evaluation.benchmark import EvaluatedEncoder
from openeupe.evaluation.features import fitting_resolution, readable
from openeupe.heads.fitting import Batch, HeadT, Loss, cached_batches, fit_head
from openeupe.heads.settings import FitSettings
from openeupe.progress import tracked

# For each image the answer of every head, and sizes for the results' details.
Answers = tuple[Iterator[list[Tensor]], dict[str, object]]


class CachedFit(FitSettings):
    """Features once per image, at one size: the short variant that CPU users can afford."""

    name: Literal["cached"] = "cached"
    height: int = Field(448, ge=1, description="Pixels; the aspect is not kept")
    width: int = Field(448, ge=1, description="Pixels; both sides are fitted to the patch size")
    label_stride: int = Field(8, ge=1, description="Pixels from label to label in training")

    def answers(
        self,
        evaluated: EvaluatedEncoder,
        make: Callable[[], HeadT],
        label: Callable[[View, int], Tensor],
        loss: Callable[[HeadT, Tensor, Tensor], Tensor],
        answer: Callable[[HeadT, Tensor], Tensor],
        data: tuple[Images, Images],
        seeds: int,
    ) -> Answers:
        """Fit a head per seed and apply it to every test image.

        Args:
            label: (view, index) -> labels of a training image, laid out like the view.
            loss: (head, tokens, labels of the same images) -> scalar.
            answer: (head, tokens `[1, D, h, w]`) -> answer `[1, ...]`.
            data: images to train and to test on.
        """
        train, test = data
        height = fitting_resolution(evaluated.encoder, self.height)
        width = fitting_resolution(evaluated.encoder, self.width)
        view, stride = View(height, width, "squash"), self.label_stride
        coarse = View(max(height // stride, 1), max(width // stride, 1), "squash")
        labels = torch.stack([label(coarse, index) for index in range(len(train))])
        heads = fit_heads(
            evaluated,
            make,
            partial(cached_batches, evaluated.features.patches(train, view), (labels,), self),
            lambda head, tokens, targets, _: loss(head, tokens, *targets),
            self,
            range(seeds),
        )

        @torch.no_grad()
        def found() -> Iterator[list[Tensor]]:
            for tokens in evaluated.features.patches(test, view).split(1):
                given = tokens.to(evaluated.device).float()
                yield [answer(head, given)[0] for head in heads]

        return found(), {"height": height, "width": width}


def with_variant(given: object, *, online: str, cached: str) -> object:
    """Settings as given, `variant: cached` written out, and under that variant's protocol.

    Args:
        online, cached: the protocols of the two variants. A suite that names the first and uses
            the other variant gets the second.
    """
    if not isinstance(given, dict):
        return given
    variant = given.get("variant", "online")
    if isinstance(variant, str):
        variant = {"name": variant}
    given = {**given, "variant": variant}
    is_cached = isinstance(variant, dict) and variant.get("name") == "cached"
    if is_cached and given.get("protocol", online) == online:
        given["protocol"] = cached
    return given


def fit_heads(
    evaluated: EvaluatedEncoder,
    make: Callable[[], HeadT],
    batches: Callable[[int], Iterable[Batch]],
    loss: Loss[HeadT],
    settings: FitSettings,
    seeds: Iterable[int],
) -> list[HeadT]:
    """A head for each seed, on the encoder's device. Arguments as in `fit_head`.

    batches: those of a seed.
    """
    heads = []
    for number, seed in enumerate(seeds, 1):
        title = f"{evaluated.encoder.name}: head {number}"
        counted = tracked(batches(seed), evaluated.progress, title, settings.steps)
        heads.append(fit_head(make, counted, loss, settings, seed=seed, device=evaluated.device))
    return heads


def ahead(images: Images, evaluated: EvaluatedEncoder) -> Iterator[Image.Image]:
    """Every image, decoded by threads while the one before is evaluated."""
    read = partial(readable, images)
    batches = batched_ahead(read, range(len(images)), 1, evaluated.features.workers)
    title = f"{evaluated.encoder.name} is evaluated"
    for (image,) in tracked(batches, evaluated.progress, title, len(images)):
        yield image
