"""Choose numbers of steps that fit a given time."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import torch

from openeupe.data import Source
from openeupe.distillation.check import meta_encoder
from openeupe.distillation.encoder_settings import StudentConfig, TeacherConfig
from openeupe.distillation.head_fit import BATCHES as HEAD_BATCHES
from openeupe.distillation.load import carried_from, load_member
from openeupe.distillation.optimizer import OptimizerConfig
from openeupe.distillation.placement import place
from openeupe.distillation.recipe import Recipe, StageConfig
from openeupe.distillation.run_folder import begun_settings
from openeupe.distillation.stage import Stage, Views
from openeupe.distillation.teacher_cache_choice import described, with_caches
from openeupe.distillation.trainer import Trainer
from openeupe.distributed import Processes
from openeupe.durations import seconds_of
from openeupe.encoders import Encoder, create
from openeupe.errors import InputError
from openeupe.progress import SILENT, Progress
from openeupe.seeds import derive_seed, seeded

_SHARE = 0.93  # of the budget that is planned; the rest is for checkpoints and variation
_MEASURED = 0.02  # of the budget that measuring a stage's steps may take
_FEWEST, _MOST = 3, 12  # steps of a stage that are measured


@dataclass(frozen=True)
class StageTime:
    """Seconds that a stage takes: `fixed_s` once, and `step_s` for every step.

    Attributes:
        teachers_s: the part of a step that cached teacher outputs save.
        view_batches: batches of one view of every image, which a cache computes once.
    """

    fixed_s: float
    step_s: float
    teachers_s: float = 0.0
    view_batches: int = 0

    def with_cache(self, views: int) -> StageTime:
        """The same stage with cached teacher outputs of its views."""
        fixed = self.fixed_s + views * self.view_batches * self.teachers_s
        return StageTime(fixed, max(self.step_s - self.teachers_s, 0.0))


def within_budget(
    recipe: Recipe,
    folder: Path,
    processes: Processes,
    sources: Sequence[Source],
    progress: Progress,
) -> Recipe:
    """Resolve a recipe's budget into numbers of steps in the stages' proportions.

    A run that has begun keeps the steps of its own recipe, so that a resume changes nothing. The
    returned recipe has numbers of steps and no budget. Warm-up and the steps of a frozen backbone
    are scaled as well. The time includes measuring, loading, statistics, cached teacher outputs
    and compilation.

    Args:
        recipe: what is to be run; its numbers of steps are taken as shares.
        folder: of the run.
        processes: this one and those next to it; all must call.
        sources: of the recipe's data, open.
        progress: gets a message with what was measured and decided.

    Raises:
        InputError: if the time does not even suffice for what comes before the first step.
    """
    began = time.perf_counter()
    if recipe.budget is None:
        return recipe
    seconds = seconds_of(recipe.budget)
    begun = begun_settings(folder, processes, "steps")
    if begun is not None:
        return with_steps(recipe, {name: int(stage["steps"]) for name, stage in begun.items()})
    times = {}
    with progress.task("measuring the speed of every stage", len(recipe.stages)) as task:
        for name in recipe.stages:
            times[name] = _measure(recipe, name, seconds, processes, sources)
            task.advance()
    spent = _slowest(time.perf_counter() - began, processes)
    left = seconds * _SHARE - spent
    written = recipe
    recipe, times = _with_caches(recipe, times, left, sum(map(len, sources)))
    for name, stage in recipe.stages.items():
        if written.stages[name].teacher_cache == "auto":
            progress.message(described(name, stage))
    steps = divide(recipe, times, left)
    for name, count in steps.items():
        each = times[name]
        progress.message(
            f"{name}: {count:,} steps of {each.step_s:.2g} s after {each.fixed_s:,.0f} s of "
            "preparation"
        )
    return with_steps(recipe, steps)


def divide(recipe: Recipe, times: Mapping[str, StageTime], seconds: float) -> dict[str, int]:
    """Steps of every stage that together take `seconds`, in the recipe's proportions.

    Raises:
        InputError: if not even one step of every stage fits.
    """
    fixed = sum(one.fixed_s for one in times.values())
    whole = sum(times[name].step_s * stage.steps for name, stage in recipe.stages.items())
    least = fixed + sum(one.step_s for one in times.values())
    if seconds < least:
        raise InputError(
            f"the budget is too small: loading, teacher statistics and one step of every stage "
            f"take {math.ceil((least - seconds) / _SHARE):,} s more than there are: ask for more, "
            "or lower statistics.iterations"
        )
    factor = (seconds - fixed) / whole
    return {name: max(1, int(stage.steps * factor)) for name, stage in recipe.stages.items()}


def _with_caches(
    recipe: Recipe, times: Mapping[str, StageTime], seconds: float, images: int
) -> tuple[Recipe, dict[str, StageTime]]:
    """Decide `teacher_cache: auto`; the times of stages with a cache follow.

    Caches are evaluated by the steps that the budget buys with one view of each image cached.
    """

    def timed(views: Mapping[str, int]) -> dict[str, StageTime]:
        return {
            name: one.with_cache(views[name]) if views.get(name) else one
            for name, one in times.items()
        }

    kinds = {name: stage.teacher_cache for name, stage in recipe.stages.items()}
    given = {k: recipe.stages[k].views or 1 for k, kind in kinds.items() if kind != "none"}
    try:
        bought = with_steps(recipe, divide(recipe, timed(given), seconds))
    except InputError:  # too little time for a cache
        bought = with_steps(recipe, dict.fromkeys(kinds, 1))
    decided = with_caches(bought, images)
    stages = {
        name: stage.model_copy(
            update={k: getattr(decided.stages[name], k) for k in ("teacher_cache", "views")}
        )
        for name, stage in recipe.stages.items()
    }
    chosen = {k: s.views or 1 for k, s in stages.items() if s.teacher_cache != "none"}
    return recipe.model_copy(update={"stages": stages}), timed(chosen)


def with_steps(recipe: Recipe, steps: Mapping[str, int]) -> Recipe:
    """Set the numbers of steps, and scale settings counted in steps.

    Stages that `steps` does not name stay as they are.
    """
    stages = {}
    for name, stage in recipe.stages.items():
        count = steps.get(name, stage.steps)
        stages[name] = stage if count == stage.steps else _scaled(stage, count)
    return recipe.model_copy(update={"stages": stages, "budget": None})


def _scaled(stage: StageConfig, steps: int) -> StageConfig:
    # Copies: a teacher of a Python program is not in the settings that could be read again.
    factor = steps / stage.steps
    students = {
        name: student.model_copy(update={"optimizer": _scaled_optimizer(student.optimizer, factor)})
        if student.optimizer
        else student
        for name, student in stage.students.items()
    }
    changes = {
        "steps": steps,
        "log_every": min(stage.log_every, max(1, steps // 10)),
        "optimizer": _scaled_optimizer(stage.optimizer, factor),
        "students": students,
    }
    return stage.model_copy(update=changes)


def _scaled_optimizer(config: OptimizerConfig, factor: float) -> OptimizerConfig:
    counted = ("warmup_steps", "freeze_backbone_steps")
    changes = {k: max(1, round(n * factor)) for k in counted if (n := getattr(config, k))}
    return config.model_copy(update=changes)


def _measure(
    recipe: Recipe, name: str, budget_s: float, processes: Processes, sources: Sequence[Source]
) -> StageTime:
    """Take a few steps of a stage. Students of earlier stages have stand-ins."""
    began = time.perf_counter()
    config = recipe.stages[name]
    with seeded(derive_seed(recipe.seed, name, "budget")):
        teachers = {k: _stand_in(recipe, m) for k, m in config.teachers.items()}
        students = {k: _stand_in(recipe, m) for k, m in config.students.items()}
        stage = Stage(name, config, teachers, students, recipe.seed)
    place(stage, processes)
    loaded = time.perf_counter() - began
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(stage, recipe.data, Path(folder), processes, SILENT, sources=sources)
        iterations = config.statistics.batches(config.batch_size)
        if carried_from(recipe, config):
            iterations = 0
        statistics = _statistics_time(trainer, iterations)
        trained = _steps_time(trainer, budget_s * _MEASURED)
        fixed, step = loaded + statistics + trained.fixed_s, trained.step_s
        if config.head_init == "ridge":
            fixed += HEAD_BATCHES * step  # a pass over a batch takes at most a step
        teachers_s = _teachers_time(trainer) if config.teacher_cache != "none" else 0.0
    batches = math.ceil(sum(map(len, sources)) / config.batch_size)
    fixed, step, teachers_s = (_slowest(one, processes) for one in (fixed, step, teachers_s))
    return StageTime(fixed, step, teachers_s, batches)


def _stand_in(recipe: Recipe, member: TeacherConfig | StudentConfig) -> Encoder:
    """The encoder, or an untrained one of its shape if its stage has not run."""
    if not member.earlier:
        return load_member(member, bool(member.pretrained))
    like = meta_encoder(recipe, member, member.args)  # a student, hence of a known name
    return create(like.name, **like.args)


def _statistics_time(trainer: Trainer, iterations: int) -> float:
    """Seconds for the teachers' statistics: the first batch also starts what reads images."""
    if not iterations:
        return 0.0
    ends = [time.perf_counter()]
    parts = trainer.statistics_parts(min(iterations, _FEWEST), "statistics", SILENT)
    for _, same in groupby(parts, key=lambda part: part[0]):
        trainer.stage.measure_statistics(same)
        _finish(trainer)
        ends.append(time.perf_counter())
    each = _mean(ends[1:])
    return ends[1] - ends[0] + (iterations - 1) * each


def _steps_time(trainer: Trainer, limit_s: float) -> StageTime:
    """Time of a step, and what the first one takes longer (starting loaders, compiling)."""
    trainer.stage.train()
    ends = [time.perf_counter()]
    for step, images, *_ in trainer.batches(0, _MOST + 1, "train"):
        trainer.step(images, step)
        _finish(trainer)
        ends.append(time.perf_counter())
        if len(ends) > _FEWEST + 1 and ends[-1] - ends[1] > limit_s:
            break
    each = _mean(ends[1:])
    return StageTime(max(ends[1] - ends[0] - each, 0.0), each)


def _teachers_time(trainer: Trainer) -> float:
    """Seconds of the teachers' pass over a batch."""
    ends = []
    for step, images, *_ in trainer.batches(0, 1, "train"):
        for _ in range(_FEWEST):
            ends.append(time.perf_counter())
            for some in images.chunk(trainer.config.accumulate):
                trainer.stage.targets(Views(some), step)
            _finish(trainer)
        ends.append(time.perf_counter())
    return _mean(ends)


def _mean(ends: Sequence[float]) -> float:
    """Mean time between moments: with several resolutions they differ. 0 for a single moment."""
    return (ends[-1] - ends[0]) / max(len(ends) - 1, 1)


def _finish(trainer: Trainer) -> None:
    """Wait for the device."""
    if trainer.device.type == "cuda":
        torch.cuda.synchronize(trainer.device)


def _slowest(seconds: float, processes: Processes) -> float:
    """The maximum over all processes."""
    value = torch.tensor(-seconds, dtype=torch.float64, device=processes.device)
    return -float(processes.least(value))
