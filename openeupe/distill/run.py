"""Carrying out a recipe: its stages, one after the other."""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import torch
from rich.console import Console
from torch import nn

from openeupe.distill.check import check_recipe, check_weights
from openeupe.distill.folder import FINISHED, Run
from openeupe.distill.load import carry_over, load_networks, orphaned
from openeupe.distill.recipe import Recipe
from openeupe.distill.stage import Stage, resolve_precision
from openeupe.distill.student import save_student
from openeupe.distill.trainer import Trainer
from openeupe.errors import InputError
from openeupe.files import write_atomically


def run_recipe(
    recipe: Recipe,
    folder: Path,
    *,
    device: torch.device | None = None,
    console: Console | None = None,
    on_log: Callable[[Stage, dict[str, float]], None] | None = None,
) -> Run:
    """Carry out every stage of `recipe` in `folder`, resuming where an earlier call was cut off.

    Raises:
        InputError: a mistake in the recipe, before any work; or data that cannot be read.
    """
    console = console or Console()
    device = device or default_device()
    check_recipe(recipe)
    run = Run.start(recipe, folder)
    ahead = [name for name in recipe.stages if not run.finished(name)]
    check_weights(recipe, ahead[1:])  # those of the first are loaded in a moment anyway
    for name in recipe.stages:
        if name not in ahead:
            console.print(f"{name}: finished before, {folder / name}")
            _tidy(folder / name)
            continue
        _run_stage(run, name, device, console, on_log)
    return run


def default_device() -> torch.device:
    """The GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _run_stage(
    run: Run,
    name: str,
    device: torch.device,
    console: Console,
    on_log: Callable[[Stage, dict[str, float]], None] | None,
) -> None:
    config = run.recipe.stages[name]
    orphans = orphaned(run, config)
    if orphans:
        kept = {k: s for k, s in config.students.items() if k not in orphans}
        told = f"stages.{name}: {', '.join(orphans)} cannot go on: it diverged before"
        if not kept:
            raise InputError(f"{told}: lower optimizer.lr there and begin in another folder")
        console.print(f"{told}; the others do", soft_wrap=True, highlight=False)
        config = config.model_copy(update={"students": kept})
    folder = run.folder / name
    teachers = load_networks(run, name, "teachers", config.teachers)
    students = load_networks(run, name, "students", config.students)
    stage = Stage(name, config, teachers, students, run.recipe.seed)
    carried = carry_over(run, stage)
    folder.mkdir(exist_ok=True)  # from here on the stage has begun
    stage.to(device)
    console.print(_headline(stage, device), soft_wrap=True, highlight=False)
    trainer = Trainer(
        stage,
        run.recipe.data,
        folder,
        device,
        console,
        on_log=(lambda record: on_log(stage, record)) if on_log else None,
    )
    trainer.run(keep_statistics=carried)
    info = _info(run, stage, device)
    stage.eval()
    for key in [one.name for one in trainer.family.alive()]:
        heads = cast(nn.ModuleDict, stage.heads[key])
        save_student(
            folder / key, students[key], dict(heads.items()), dict(stage.statistics.items()), info
        )
    dropped = {**dict.fromkeys(orphans, 0), **trainer.family.dropped}
    finished = {"broken_images": sorted(trainer.broken.names), "dropped": dropped, **info}
    write_atomically(folder / FINISHED, json.dumps(finished, indent=2))
    _tidy(folder)


def _tidy(stage_folder: Path) -> None:
    """Remove what a finished stage needs no more, and what killed writes left behind."""
    for path in (stage_folder / "checkpoints", *stage_folder.glob(".*")):
        shutil.rmtree(path, ignore_errors=True)


def _info(run: Run, stage: Stage, device: torch.device) -> dict[str, Any]:
    """What is told beside each finished student."""
    config = stage.config
    return {
        "run": run.recipe.name,
        "stage": stage.name,
        "seed": stage.seed,
        "steps": config.steps,
        "images": config.steps * config.batch_size,
        "head_hidden": config.head_hidden,
        "teachers": {
            name: {
                "encoder": config.teachers[name].encoder,
                "cls_dim": teacher.cls_dim,
                "patch_dim": teacher.patch_dim,
                "resolution": config.teachers[name].resolution,
            }
            for name, teacher in stage.teachers.items()
        },
        "device": str(device),
        "versions": {
            "python": platform.python_version(),
            **{package: version(package) for package in ("openeupe", "torch", "timm")},
        },
    }


def _headline(stage: Stage, device: torch.device) -> str:
    def millions(encoder: Any) -> str:
        return f"{sum(p.numel() for p in encoder.parameters()) / 1e6:.1f}M"

    def sides(config: Any) -> str:
        return "/".join(map(str, config.resolution))

    config = stage.config
    teachers = ", ".join(
        f"{k} ({millions(stage.teachers[k])}, {sides(c)} px)" for k, c in config.teachers.items()
    )
    students = ", ".join(
        f"{k} ({millions(stage.students[k])}, {sides(c)} px)" for k, c in config.students.items()
    )
    precision = "/".join(
        resolve_precision(p, device) for p in (config.teacher_precision, config.student_precision)
    )
    return (
        f"{stage.name}: {teachers} -> {students}; {config.steps} steps of {config.batch_size} "
        f"images on {device}, {precision} (teachers/students)"
    )
