"""Run the stages of a recipe."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import cast

import torch
from torch import nn

from openeupe.data import Source, image_sets
from openeupe.distillation.budget import within_budget
from openeupe.distillation.check import check_recipe, check_weights, start_of
from openeupe.distillation.checkpoint import CHECKPOINTS, remove_checkpoints
from openeupe.distillation.encoder_settings import EncoderConfig
from openeupe.distillation.load import carry_over, load_networks, orphaned
from openeupe.distillation.placement import place, unsharded
from openeupe.distillation.precision import settled
from openeupe.distillation.recipe import Recipe
from openeupe.distillation.run_folder import Run
from openeupe.distillation.saved import StudentInfo, TeacherInfo
from openeupe.distillation.stage import Stage
from openeupe.distillation.student import save_student, student_files
from openeupe.distillation.teacher_cache import CACHE, remove_cache
from openeupe.distillation.teacher_cache_choice import decided
from openeupe.distillation.track import open_tracker
from openeupe.distillation.trainer import Trainer
from openeupe.distributed import Processes, check_share, processes
from openeupe.encoders import Encoder
from openeupe.encoders.run_layout import FINISHED
from openeupe.errors import InputError
from openeupe.files import remove_partials, write_atomically
from openeupe.identity import file_identity
from openeupe.known_warnings import known_warnings_ignored
from openeupe.locks import locked
from openeupe.progress import LOGGED, SILENT, Progress
from openeupe.seeds import unchanged_draws


@known_warnings_ignored()
def run_recipe(
    recipe: Recipe,
    folder: Path,
    *,
    device: torch.device | None = None,
    progress: Progress = LOGGED,
    on_log: Callable[[Stage, dict[str, float]], None] | None = None,
) -> Run:
    """Run every stage of `recipe` in `folder`, resuming an interrupted run.

    Args:
        recipe: the stages.
        folder: of the run.
        device: default: a GPU if there is one.
        progress: follows messages, steps and log records.
        on_log: called with each log record (see `Trainer`).

    Raises:
        InputError: for an invalid recipe, before training; for data that cannot be read; or if
            another process uses `folder`.
        Stopped: on SIGTERM or SIGINT, once a checkpoint of the step is on the disk.
    """
    with processes(device) as here, unchanged_draws(here.device):
        progress = progress if here.first else SILENT
        sources = check_recipe(recipe)
        for name, config in recipe.stages.items():
            check_share(config.batch_size, config.accumulate, here.count, f"stages.{name}")
        with _alone(folder, here):
            recipe = within_budget(recipe, folder, here, sources, progress)
            recipe = decided(recipe, folder, here, sources, progress)
            if here.first:
                Run.start(recipe, folder)
            here.wait()
            run = Run(folder, recipe)
            ahead = [name for name in recipe.stages if not run.finished(name)]
            images = image_sets(sources) if here.first and ahead else []
            if here.first:
                for name in recipe.stages:
                    if name not in ahead:
                        run.check(name)
                check_weights(recipe, ahead[1:])  # those of the first stage are loaded next anyway
            if images:
                for name in run.check_images(images):
                    progress.message(
                        f"{name}: images not recorded by an earlier version, not compared"
                    )
            here.wait()
            for name in recipe.stages:
                if name in ahead:
                    _run_stage(run, name, here, progress, on_log, sources, images)
                    continue
                progress.message(f"{name}: finished before, {folder / name}")
                if here.first:
                    _tidy(folder / name)
    return run


def _alone(folder: Path, here: Processes) -> AbstractContextManager[None]:
    """Lock of the run folder, held by the first process."""
    return locked(folder, "the run") if here.first else nullcontext()


def _run_stage(
    run: Run,
    name: str,
    here: Processes,
    progress: Progress,
    on_log: Callable[[Stage, dict[str, float]], None] | None,
    sources: list[Source],
    images: list[dict[str, object]],
) -> None:
    config = run.recipe.stages[name]
    orphans = orphaned(run, config)
    if orphans:
        kept = {k: s for k, s in config.students.items() if k not in orphans}
        problem = f"stages.{name}: {', '.join(orphans)} cannot continue: it diverged before"
        if not kept:
            raise InputError(f"{problem}: lower optimizer.lr there and begin in another folder")
        progress.message(f"{problem}; the others continue")
        config = config.model_copy(update={"students": kept})
    folder = run.folder / name
    teachers = load_networks(run, name, "teachers", config.teachers)
    students = load_networks(run, name, "students", config.students)
    stage = Stage(name, config, teachers, students, run.recipe.seed)
    carried = carry_over(run, stage)
    folder.mkdir(exist_ok=True)  # from here on the stage has begun
    if here.first:
        run.record_images(name, images)
    stage.config = settled(config, folder, here, lambda line: progress.message(f"{name}: {line}"))
    headline = _headline(stage, here)
    sharded = place(stage, here)
    headline += f", sharded over {here.per_node}: {', '.join(sharded)}" if sharded else ""
    progress.message(headline)
    trainer = Trainer(
        stage,
        run.recipe.data,
        folder,
        here,
        progress,
        on_log=(lambda record: on_log(stage, record)) if on_log else None,
        tracker=lambda done: open_tracker(run.recipe.tracker, folder, run.recipe.name, name, done),
        sources=sources,
        images=images,
    )
    trainer.run(keep_statistics=carried)
    _save_students(stage, trainer, orphans, _info(run, stage, here))
    here.wait()


def _save_students(stage: Stage, trainer: Trainer, orphans: list[str], info: StudentInfo) -> None:
    """Save the finished students, then the completion marker; then remove checkpoints."""
    stage.eval()
    for learner in trainer.students.alive():
        encoder, heads = unsharded(stage, learner.name, trainer.processes)
        if trainer.processes.first:
            statistics = {t: stage.statistics[t] for t in heads}
            own = info.of(list(heads), start_of(stage.config.students[learner.name]))
            save_student(trainer.folder / learner.name, encoder, heads, statistics, own)
    broken = trainer.batches.broken_names()
    if trainer.processes.first:
        dropped = {**dict.fromkeys(orphans, 0), **trainer.students.dropped}
        students = [trainer.folder / learner.name for learner in trainer.students.alive()]
        files = [file for student in students for file in student_files(student)]
        finished = {
            "broken_images": broken,
            "dropped": dropped,
            "files": {
                file.relative_to(trainer.folder).as_posix(): file_identity(file) for file in files
            },
            **info.model_dump(exclude={"start"}),
        }
        # Checkpoints are removed only when this file is on the disk, too.
        write_atomically(trainer.folder / FINISHED, json.dumps(finished, indent=2))
        _tidy(trainer.folder)


def _tidy(stage_folder: Path) -> None:
    """Remove checkpoints, caches and partial files of a finished stage."""
    remove_checkpoints(stage_folder / CHECKPOINTS)
    remove_cache(stage_folder / CACHE)
    remove_partials(stage_folder)


def _info(run: Run, stage: Stage, here: Processes) -> StudentInfo:
    """Contents of `distillation.json` of each finished student."""
    config = stage.config
    packages = {package: version(package) for package in ("openeupe", "torch", "timm")}
    return StudentInfo(
        run=run.recipe.name,
        stage=stage.name,
        seed=stage.seed,
        steps=config.steps,
        images=config.steps * config.batch_size,
        head_hidden=config.head_hidden,
        teachers={
            name: TeacherInfo(
                encoder=config.teachers[name].encoder,
                args=config.teachers[name].args,
                pretrained=config.teachers[name].pretrained,
                cls_dim=cast(Encoder, teacher).cls_dim,
                patch_dim=cast(Encoder, teacher).patch_dim,
                identity=stage.identities[name],
                resolution=config.teachers[name].resolution,
            )
            for name, teacher in stage.teachers.items()
        },
        precision={"teachers": config.teacher_precision, "students": config.student_precision},
        device=str(here.device),
        processes=here.count,
        versions={"python": platform.python_version(), **packages},
    )


def _headline(stage: Stage, here: Processes) -> str:
    def millions(encoder: nn.Module) -> str:
        return f"{sum(p.numel() for p in encoder.parameters()) / 1e6:.1f}M"

    def pixels(config: EncoderConfig) -> str:
        return "/".join(map(str, config.resolution))

    config = stage.config
    teachers = ", ".join(
        f"{k} ({millions(stage.teachers[k])}, {pixels(c)} px)" for k, c in config.teachers.items()
    )
    students = ", ".join(
        f"{k} ({millions(stage.students[k])}, {pixels(c)} px)" for k, c in config.students.items()
    )
    precision = f"{config.teacher_precision}/{config.student_precision}"
    where = f"{here.count} x {here.device.type}" if here.count > 1 else str(here.device)
    return (
        f"{stage.name}: {teachers} -> {students}; {config.steps} steps of {config.batch_size} "
        f"images on {where}, {precision} (teachers/students)"
    )
