"""The training loop of one stage."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn

from openeupe.data import Batches, BrokenImages, DataConfig, derive_seed, open_source
from openeupe.distill.checkpoint import (
    checkpoints,
    load_checkpoint,
    module_tensors,
    optimizer_tensors,
    restore_module,
    restore_optimizer,
    save_checkpoint,
)
from openeupe.distill.family import Family
from openeupe.distill.metrics import Meter, MetricsLog, StageProgress
from openeupe.distill.stage import Stage, Views


class Trainer:
    """Trains the students of a stage, checkpoints, and resumes to the same result.

    Args:
        stage: the stage, its networks built and on `device`.
        data: where images come from.
        folder: gets `checkpoints/`, `metrics.jsonl` and `tensorboard/`.
        console: where progress is shown.
        on_log: called with each log record; it may evaluate the students, but must leave the
            global random state and the networks' mode as they were.
    """

    def __init__(
        self,
        stage: Stage,
        data: DataConfig,
        folder: Path,
        device: torch.device,
        console: Console,
        on_log: Callable[[dict[str, float]], None] | None = None,
    ) -> None:
        self.stage = stage
        self.config = stage.config
        self.data = data
        self.sources = [open_source(source) for source in data.sources]
        self.folder = folder
        self.device = device
        self.console = console
        self.on_log = on_log
        self.family = Family(stage, device)
        self.meter = Meter()
        self.broken = BrokenImages(data.max_broken)

    def run(self, *, keep_statistics: bool = False) -> None:
        """Train to the last step, from the newest checkpoint if there is one.

        keep_statistics: the teachers' statistics are given (carried over from an earlier stage).
        """
        done = self._resume()
        if done is None:
            done = 0
            if not keep_statistics:
                self._measure_statistics()
            self._save(0)
        self.stage.train()
        log = MetricsLog(self.folder, done)
        progress = StageProgress(self.console, self.stage.name, self.config.steps, done)
        try:
            with progress:
                self._loop(done, log, progress)
        finally:
            log.close()

    def step(self, images: Tensor, step: int) -> dict[str, Tensor]:
        """One iteration on uint8 images `[B, 3, S, S]`: one teacher pass, then every student.

        Returns device scalars by name; nothing is read to the host.
        """
        views = Views(images)
        targets = self.stage.targets(views, step)
        values: dict[str, Tensor] = {}
        for learner in self.family.alive():
            values |= learner.learn(views, targets, step)
        return values

    def _loop(self, done: int, log: MetricsLog, progress: StageProgress) -> None:
        config = self.config
        last, waited, images_since = time.perf_counter(), 0.0, 0
        for step, images, wait_s in self._batches(done, config.steps, "train"):
            self.meter.add(self.step(images, step))
            waited += wait_s
            images_since += len(images)
            done = step + 1
            if done % config.log_every == 0 or done == config.steps:
                means = self._means()
                now = time.perf_counter()
                record = {
                    "step": done,
                    "images": done * config.batch_size,
                    **self._rates(step),
                    **means,
                    "images_per_s": images_since / (now - last),
                    "waiting": waited / (now - last),
                    "broken_images": len(self.broken.names),
                }
                log.write(record)
                progress.show(record)
                if self.on_log:
                    self.on_log(record)
                last, waited, images_since = time.perf_counter(), 0.0, 0
            progress.advance(done)
            if done % config.checkpoint_every == 0 or done == config.steps:
                self._save(done)

    def _means(self) -> dict[str, float]:
        """Means since the last log; a student that is not finite is reported and dropped."""
        means = self.meter.flush()
        if not all(math.isfinite(value) for value in means.values()):
            for name in self.family.drop_failed():
                self.console.print(
                    f"{self.stage.name}: the loss of {name} was not finite at step "
                    f"{self.family.dropped[name]}: dropped, the others go on",
                    soft_wrap=True,
                    highlight=False,
                )
        return self.family.without_dropped(means)

    def _rates(self, step: int) -> dict[str, float]:
        """The learning rate, by student where they differ."""
        rates = {one.name: one.lr(step) for one in self.family.alive()}
        if len(set(rates.values())) == 1:
            return {"lr": next(iter(rates.values()))}
        return {f"lr/{name}": rate for name, rate in rates.items()}

    def _batches(self, first: int, last: int, stream: str) -> Iterator[tuple[int, Tensor, float]]:
        """(step, uint8 images on the device, seconds waited for them)."""
        batches = Batches(
            self.data,
            batch_size=self.config.batch_size,
            side=self.config.side,
            seed=derive_seed(self.stage.seed, self.stage.name),
            first_step=first,
            last_step=last,
            stream=stream,
            sources=self.sources,
        )
        batches.broken = self.broken
        iterator = iter(batches)
        while True:
            start = time.perf_counter()
            batch = next(iterator, None)
            if batch is None:
                return
            images = batch.images.to(self.device, non_blocking=True)
            yield batch.step, images, time.perf_counter() - start

    def _measure_statistics(self) -> None:
        iterations = self.config.statistics.iterations
        with self.console.status(f"{self.stage.name}: measuring teacher statistics"):
            self.stage.measure_statistics(
                (step, images) for step, images, _ in self._batches(0, iterations, "statistics")
            )

    def _modules(self) -> dict[str, nn.Module]:
        stage = self.stage
        return {"students": stage.students, "heads": stage.heads, "statistics": stage.statistics}

    def _save(self, step: int) -> None:
        family = self.family.state()
        tensors: dict[str, Tensor] = {}
        for name, module in self._modules().items():
            tensors |= module_tensors(module, name)
        for learner in self.family.alive():
            tensors |= optimizer_tensors(learner.optimizer, f"optimizer.{learner.name}")
        extra: dict[str, Any] = {"broken": self.broken.state(), "family": family, "meter": None}
        if self.meter.sums is not None:
            tensors["meter"] = self.meter.sums
            extra["meter"] = {"names": self.meter.names, "count": self.meter.count}
        save_checkpoint(self.folder / "checkpoints", step, tensors, extra)

    def _resume(self) -> int | None:
        """Restore the newest checkpoint; its step, or None where there is none."""
        found = checkpoints(self.folder / "checkpoints")
        if not found:
            return None
        tensors, extra = load_checkpoint(found[-1])
        for name, module in self._modules().items():
            restore_module(module, tensors, name)
        self.family.restore(extra["family"])
        for learner in self.family.alive():
            restore_optimizer(learner.optimizer, tensors, f"optimizer.{learner.name}")
        self.broken.restore(extra["broken"])
        if extra["meter"]:
            self.meter.names, self.meter.count = extra["meter"]["names"], extra["meter"]["count"]
            self.meter.sums = tensors["meter"].to(self.device)
        return int(extra["step"])
