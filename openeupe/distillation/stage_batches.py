"""Batches of a stage's images on its device, with cached teacher outputs."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from openeupe.data import (
    Batch,
    BatchAugment,
    Batches,
    BrokenImages,
    DataConfig,
    RepeatedViews,
    Source,
)
from openeupe.distillation.stage import Stage
from openeupe.distillation.teacher_cache import CachedTokens
from openeupe.distributed import Processes
from openeupe.seeds import derive_seed


class Loaded(NamedTuple):
    """This process's images of a step.

    images: uint8 `[b, 3, S, S]` on the device. cached: teacher tensors by name.
    waited_s: seconds that training waited for them.
    """

    step: int
    images: Tensor
    cached: dict[str, Tensor]
    waited_s: float


class StageBatches:
    """Loads, augments and sends a stage's images. Counts those that cannot be read.

    Args:
        sources: of `data`, open.

    Attributes:
        views: fixed augmentations per image, if their number is limited.
        teacher_cache: reads cached teacher outputs of these views, once they are computed.
        broken: counts unreadable images.
    """

    def __init__(
        self, stage: Stage, data: DataConfig, sources: Sequence[Source], processes: Processes
    ) -> None:
        self.stage, self.data, self.processes = stage, data, processes
        self.sources = sources
        self.device = processes.device
        self.views = self._views()
        self.teacher_cache: CachedTokens | None = None
        self.broken = BrokenImages(data.max_broken)
        self.augment = BatchAugment(data.augment, stage.config.largest_resolution, self.device)
        self.copying: Any = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None

    def __call__(self, first: int, last: int, stream: str) -> Iterator[Loaded]:
        """Iterate over the steps `first` to `last - 1`. Each stream has its own random draws."""
        config = self.stage.config
        batches = Batches(
            self.data,
            batch_size=config.batch_size,
            resolution=config.largest_resolution,
            seed=derive_seed(self.stage.seed, self.stage.name),
            first_step=first,
            last_step=last,
            stream=stream,
            rank=self.processes.rank,
            world_size=self.processes.count,
            sources=self.sources,
            repeated=self.views,
            teacher_cache=self.teacher_cache,
        )
        batches.broken = self.broken
        iterator = iter(batches)
        while True:
            start = time.perf_counter()
            batch = next(iterator, None)
            if batch is None:
                return
            images, cached = self._sent(batch)
            yield Loaded(batch.step, images, cached, time.perf_counter() - start)

    def broken_names(self) -> list[str]:
        """Unreadable images of all processes; all processes must call this."""
        return sorted({n for names in self._gather_broken("names") for n in names})

    def broken_state(self) -> dict[str, Any]:
        """State of all processes for a checkpoint."""
        return {"drawn": sum(self._gather_broken("drawn")), "names": self.broken_names()}

    def _gather_broken(self, field: str) -> list[Any]:
        return self.processes.gather_plain(self.broken.state()[field])

    def _views(self) -> RepeatedViews | None:
        count = self.stage.config.views
        if count is None:
            return None
        data, given = self.data, self.data.views_seed
        seed = self.stage.seed if given is None else given
        return RepeatedViews(data, self.stage.config.largest_resolution, seed, count, self.sources)

    def _sent(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Images and their cached teacher outputs, on the device.

        On a GPU, copies and `augment.on_device` run on a separate stream, in parallel with the step
        before.
        """
        cuda = self.device.type == "cuda"
        with torch.cuda.stream(self.copying) if cuda else nullcontext():
            images = batch.images.to(self.device, non_blocking=True)
            cached = {k: t.to(self.device, non_blocking=True) for k, t in batch.cached.items()}
            if batch.draws is not None:
                images = self.augment(images, batch.draws.to(self.device, non_blocking=True))
        if cuda:
            computing = torch.cuda.current_stream()
            computing.wait_stream(self.copying)
            for tensor in (images, *cached.values()):
                tensor.record_stream(computing)  # else its memory would be used again too soon
        return images, cached
