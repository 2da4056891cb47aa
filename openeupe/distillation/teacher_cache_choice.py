"""Choose whether caching teacher outputs pays: `teacher_cache: auto`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from openeupe.data import Source
from openeupe.distillation.plan import image_gflops
from openeupe.distillation.recipe import Recipe, StageConfig
from openeupe.distillation.run_folder import begun_settings
from openeupe.distributed import Processes
from openeupe.progress import Progress

_SAVES = 0.2  # of a stage's compute: less is not worth views that are repeated
_REPEATS = 4  # times that a view is trained on, where the number of views is free


def caching_pays(recipe: Recipe, name: str, images: int) -> int:
    """Views per image whose teacher outputs are worth caching. 0 if none.

    A stage draws `steps * batch_size` images. With a cache, the teachers see every view once and
    not every image that is drawn. That pays if it saves a fifth of the stage's compute. A stage
    that leaves `views` open gets one for every four times that an image is drawn.

    Args:
        recipe: with the numbers of steps.
        name: of a stage.
        images: in all sources together.
    """
    stage = recipe.stages[name]
    if any(len(teacher.resolution) > 1 for teacher in stage.teachers.values()) or not images:
        return 0
    drawn = stage.steps * stage.batch_size
    views = stage.views or max(1, drawn // (_REPEATS * images))
    teachers, students = image_gflops(recipe, stage)
    saved = (drawn - views * images) * teachers
    return views if saved >= _SAVES * drawn * (teachers + students) else 0


def with_caches(recipe: Recipe, images: int) -> Recipe:
    """The recipe with `teacher_cache: auto` decided in every stage, by arithmetic alone."""
    stages = dict(recipe.stages)
    for name, stage in recipe.stages.items():
        if stage.teacher_cache == "auto":
            views = caching_pays(recipe, name, images)
            chosen = (
                {"teacher_cache": "bf16", "views": views} if views else {"teacher_cache": "none"}
            )
            stages[name] = stage.model_copy(update=chosen)
    return recipe.model_copy(update={"stages": stages})


def described(name: str, stage: StageConfig) -> str:
    """A line about what was decided for a stage."""
    cached = stage.teacher_cache != "none"
    how = f"cached for {stage.views} view(s) of each image" if cached else "computed at every step"
    return f"{name}: teacher outputs are {how} (teacher_cache: auto)"


def decided(
    recipe: Recipe,
    folder: Path,
    processes: Processes,
    sources: Sequence[Source],
    progress: Progress,
) -> Recipe:
    """`with_caches` once for a run: a resumed run takes its own recipe's values.

    Args:
        recipe: what is to be run, its numbers of steps chosen.
        folder: of the run.
        processes: this one and those next to it; all must call.
        sources: of the recipe's data, open.
        progress: gets a message about every stage with a choice.
    """
    open_stages = [k for k, stage in recipe.stages.items() if stage.teacher_cache == "auto"]
    if not open_stages:
        return recipe
    before = begun_settings(folder, processes, "teacher_cache", "views") or {}
    chosen = with_caches(recipe, sum(map(len, sources)))
    stages = dict(chosen.stages)
    for name in open_stages:
        if name in before:
            stages[name] = stages[name].model_copy(update=before[name])
        else:
            progress.message(described(name, stages[name]))
    return recipe.model_copy(update={"stages": stages})
