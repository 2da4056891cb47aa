"""The training loop of one stage."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from openeupe.data import DataConfig, Source, open_sources
from openeupe.distillation.checkpoint import (
    CHECKPOINTS,
    Checkpoint,
    CheckpointWriter,
    local_copies,
    module_tensors,
    newest_whole,
    optimizer_tensors,
)
from openeupe.distillation.fp8 import check_parity, teachers_to_fp8
from openeupe.distillation.head_fit import BATCHES as HEAD_BATCHES
from openeupe.distillation.head_fit import fit_heads
from openeupe.distillation.initialize import measure_batch_norm
from openeupe.distillation.metrics import Meter, MetricsLog
from openeupe.distillation.stage import Stage, Views
from openeupe.distillation.stage_batches import StageBatches
from openeupe.distillation.students import Students
from openeupe.distillation.teacher_cache import CACHE, CachedTokens, cached_targets
from openeupe.distillation.teacher_cache_writer import TeacherCacheWriter
from openeupe.distillation.track import TensorBoard, Tracker
from openeupe.distributed import Processes, StopTogether, average_batch_norm
from openeupe.progress import Progress, Task
from openeupe.stopping import Stopped, StopRequest, stop_requested

_BATCH_NORM = 8  # batches for the running statistics of a student with `init`


class Trainer:
    """Trains the students of a stage with checkpoints and exact resume.

    Args:
        stage: the stage, its networks built and placed.
        data: where images come from.
        folder: gets `checkpoints/`, `metrics.jsonl` and `tensorboard/`.
        processes: of the run; the first one writes.
        progress: receives messages, steps and log records.
        on_log: called with each log record, in every process; it may evaluate the students, but
            must leave the global random state and the networks' mode as they were.
        tracker: opens the experiment tracker, given the number of finished steps.
        sources: those of `data`, if they are open.
        images: `image_sets` of the sources, if the first process has read them.
    """

    def __init__(
        self,
        stage: Stage,
        data: DataConfig,
        folder: Path,
        processes: Processes,
        progress: Progress,
        on_log: Callable[[dict[str, float]], None] | None = None,
        tracker: Callable[[int], Tracker] | None = None,
        *,
        sources: Sequence[Source] | None = None,
        images: list[dict[str, object]] | None = None,
    ) -> None:
        self.stage = stage
        self.config = stage.config
        self.images = images
        self.folder = folder
        self.processes = processes
        self.device = processes.device
        self.progress = progress
        self.on_log = on_log
        self.tracker = tracker or (lambda done: TensorBoard(folder, done))
        self.students = Students(stage, processes)
        self.meter = Meter()
        self.batches = StageBatches(stage, data, sources or open_sources(data.sources), processes)
        self.writer = CheckpointWriter(processes)
        self.log: MetricsLog | None = None

    def run(self, *, keep_statistics: bool = False) -> None:
        """Train to the last step, from the newest checkpoint if any.

        keep_statistics: the teachers' statistics are given (carried over from an earlier stage).
        """
        try:
            self._run(keep_statistics)
        finally:
            self.writer.wait()

    def _run(self, keep_statistics: bool) -> None:
        if self.config.teacher_precision == "fp8":
            self._to_fp8()
        done = self._resume()
        if done is None:
            done = 0
            if not keep_statistics:
                self._measure_statistics()
            self._measure_batch_norm()
            if self.config.head_init == "ridge" and not keep_statistics:
                self._fit_heads()
            self._save(0)
        if self.config.teacher_cache != "none":
            self.batches.teacher_cache = self._cache_teachers()
        self.stage.train()
        if self.processes.first:
            self.log = MetricsLog(self.folder, done, self.tracker(done), self._report)
        progress = self.progress.task(self.stage.name, self.config.steps, done)
        try:
            with progress as task, stop_requested() as stop:
                self._loop(done, task, stop)
        finally:
            if self.log:
                self.log.close()

    def step(
        self, images: Tensor, step: int, cached: dict[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """One iteration on uint8 images `[b, 3, S, S]`, this process's share of the batch.

        One teacher pass, or its `cached` outputs, serves every student, in `accumulate` parts.
        Returns device scalars by name, without synchronizing.
        """
        sums: dict[str, Tensor] = {}
        norms: dict[str, Tensor] = {}
        parts = images.chunk(self.config.accumulate)
        for part, some in enumerate(parts):
            views = Views(some)
            if cached:
                some_cached = {name: t.chunk(len(parts))[part] for name, t in cached.items()}
                targets = cached_targets(self.stage, some_cached)
            else:
                targets = self.stage.targets(views, step)
            for learner in self.students.alive():
                for name, value in learner.backward(views, targets, step, part).items():
                    sums[name] = sums[name] + value if part else value
                if part == len(parts) - 1:
                    norms |= learner.update(step)
        if len(parts) > 1:
            sums = {name: value / len(parts) for name, value in sums.items()}
        return sums | norms

    def _loop(self, done: int, task: Task, stop: StopRequest) -> None:
        config, log = self.config, self.log
        stopping = StopTogether(self.processes, stop)
        last, waited, images_since = time.perf_counter(), 0.0, 0
        for step, images, cached, wait_s in self.batches(done, config.steps, "train"):
            self.meter.add(self.step(images, step, cached))
            waited += wait_s
            images_since += len(images) * self.processes.count
            done = step + 1
            task.advance()
            if done % config.log_every == 0 or done == config.steps:
                means = self._means(last=done == config.steps)
                now = time.perf_counter()
                record = {
                    "step": done,
                    "images": done * config.batch_size,
                    **self._rates(step),
                    **means,
                    "images_per_s": images_since / (now - last),
                    "waiting": waited / (now - last),
                    "broken_images": len(self.batches.broken_names()),
                }
                if log:
                    log.write(record)
                task.report(record)
                if self.on_log:
                    self.on_log(record)
                last, waited, images_since = time.perf_counter(), 0.0, 0
            signum = stopping.signal()
            if done % config.checkpoint_every == 0 or done == config.steps or signum:
                self._save(done)
            if signum:
                self.writer.wait()
                raise Stopped(signum, f"{self.stage.name}, step {done} of {config.steps}")

    def _report(self, line: str) -> None:
        self.progress.message(f"{self.stage.name}: {line}")

    def _means(self, last: bool) -> dict[str, float]:
        """Average the metrics since the last log; drop students that diverged.

        last: after the stage's last update, whose weights are checked as well.
        """
        for learner in self.students.alive() if last else ():
            learner.watch_weights(self.config.steps - 1)
        if self.meter.sums is not None:
            self.meter.sums = self.processes.mean(self.meter.sums)
        means = self.meter.flush()
        if last or not all(math.isfinite(value) for value in means.values()):
            for name in self.students.drop_failed():
                self._report(
                    f"{name} was not finite at step {self.students.dropped[name]}: "
                    "dropped, the others continue"
                )
        return self.students.without_dropped(means)

    def _rates(self, step: int) -> dict[str, float]:
        """The learning rate, by student where they differ."""
        rates = {one.name: one.lr(step) for one in self.students.alive()}
        if len(set(rates.values())) == 1:
            return {"lr": next(iter(rates.values()))}
        return {f"lr/{name}": rate for name, rate in rates.items()}

    def _to_fp8(self) -> None:
        """Convert the teachers to fp8, and report the error."""
        _, images, *_ = next(self.batches(0, 1, "statistics"))
        images = images[: max(2, len(images) // self.config.accumulate)]
        errors = teachers_to_fp8(self.stage, images)
        means = {name: float(self.processes.mean(error)) for name, error in errors.items()}
        listed = ", ".join(f"{name} {error:.2%}" for name, error in means.items())
        self._report(f"fp8 changes the teachers' tokens by: {listed}")
        check_parity(self.stage, means)

    def _cache_teachers(self) -> CachedTokens:
        """Compute missing teacher outputs, then free the teachers' memory."""
        views, config = self.batches.views, self.config
        assert views is not None  # the recipe was checked
        given = config.teacher_cache_path
        path = Path(given).expanduser() if given else self.folder / CACHE
        batch = config.batch_size // (self.processes.count * config.accumulate)
        workers, images = self.batches.data.workers, self.images
        writer = TeacherCacheWriter(self.stage, views, path, self.processes, batch, workers, images)
        cached = writer.write(self.progress)
        for teacher in self.stage.teachers.values():
            if not isinstance(teacher, FSDPModule):
                teacher.to("meta")
        return cached

    def statistics_parts(
        self, count: int, title: str, progress: Progress
    ) -> Iterator[tuple[int, Tensor]]:
        """Batches that only measure: (step, uint8 images), in the parts that are computed at once.

        Args:
            count: number of batches.
            title: of the task that is reported.
            progress: follows the batches.
        """
        with progress.task(f"{self.stage.name}: {title}", count) as task:
            for step, images, *_ in self.batches(0, count, "statistics"):
                yield from ((step, some) for some in images.chunk(self.config.accumulate))
                task.advance()

    def _measure_statistics(self) -> None:
        count = self.config.statistics.batches(self.config.batch_size)
        parts = self.statistics_parts(count, "measuring teacher statistics", self.progress)
        self.stage.measure_statistics(parts, self._gather)

    def _fit_heads(self) -> None:
        parts = self.statistics_parts(HEAD_BATCHES, "fitting adapter heads", self.progress)
        fit_heads(self.stage, parts, self._gather)

    @property
    def _gather(self) -> Callable[[Tensor], list[Tensor]] | None:
        """Gives the tensor of every process, where there are several."""
        return self.processes.gather if self.processes.count > 1 else None

    def _measure_batch_norm(self) -> None:
        """Measure running statistics again for students cut out of a larger network."""
        for name, student in self.config.students.items():
            if student.init:
                resolution = max(student.resolution)
                title = f"measuring batch norm of {name}"
                parts = self.statistics_parts(_BATCH_NORM, title, self.progress)
                images = (Views(some).at(resolution) for _, some in parts)
                measure_batch_norm(self.stage.students[name], images)

    def _modules(self) -> dict[str, nn.Module]:
        stage = self.stage
        return {"students": stage.students, "heads": stage.heads, "statistics": stage.statistics}

    def _save(self, step: int) -> None:
        average_batch_norm(self.stage.students.modules(), self.processes)
        students = self.students.state()
        tensors = self._tensors()
        broken = self.batches.broken_state()
        extra: dict[str, object] = {"broken": broken, "students": students, "meter": None}
        extra["teachers"] = self.stage.identities
        if self.meter.sums is not None:
            tensors["meter"] = self.processes.mean(self.meter.sums)
            extra["meter"] = {"names": self.meter.names, "count": self.meter.count}
        if self.log:
            self.log.flush()  # a checkpoint never has more steps than the metrics
        self.writer.save(self.folder / CHECKPOINTS, step, local_copies(tensors), extra)

    def _resume(self) -> int | None:
        """Restore the newest checkpoint; its step, or None where there is none."""
        first, folder = self.processes.first, self.folder / CHECKPOINTS
        newest = newest_whole(folder, self._report) if first else None
        found = self.processes.gather_plain(newest)[0]
        if found is None:
            return None
        checkpoint = Checkpoint(found)
        self.stage.check_teachers(checkpoint.extra["teachers"])
        self.students.restore(checkpoint.extra["students"])
        tensors = self._tensors()
        meter = checkpoint.extra["meter"]
        if meter:
            self.meter.names, self.meter.count = meter["names"], meter["count"]
            self.meter.sums = torch.zeros(len(self.meter.names), device=self.device)
            tensors["meter"] = self.meter.sums
        checkpoint.read_into(tensors, self.processes)
        if self.processes.first:  # the first one continues; others start at 0
            self.batches.broken.restore(checkpoint.extra["broken"])
        return int(checkpoint.extra["step"])

    def _tensors(self) -> dict[str, Tensor]:
        """Tensors of a checkpoint, not copied."""
        tensors: dict[str, Tensor] = {}
        for name, module in self._modules().items():
            tensors |= module_tensors(module, name)
        for learner in self.students.alive():
            for optimizer in learner.optimizers:
                kind = type(optimizer).__name__.lower()
                tensors |= optimizer_tensors(optimizer, f"{kind}.{learner.name}")
        return tensors
