"""A run: the folder in which a recipe's stages are carried out, one after the other."""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import torch
from rich.console import Console
from torch import nn

from openeupe import encoders
from openeupe.data import derive_seed
from openeupe.distill.check import check_recipe, check_weights
from openeupe.distill.recipe import (
    STAGE_PREFIX,
    Recipe,
    StageConfig,
    StudentConfig,
    TeacherConfig,
    dump_recipe,
    load_recipe,
)
from openeupe.distill.stage import Stage, resolve_precision
from openeupe.distill.student import DistilledStudent, load_student, save_student
from openeupe.distill.trainer import Trainer
from openeupe.encoders import Encoder
from openeupe.errors import InputError
from openeupe.files import write_atomically

_RECIPE = "recipe.yaml"
_FINISHED = "finished.json"
# How images are read, and how often is logged or saved, changes no result.
_WITHOUT_EFFECT = {"workers", "cache_images", "max_broken", "log_every", "checkpoint_every"}


@dataclass
class Run:
    """A run folder: the resolved recipe, and one folder a stage.

    What is finished is not done again; what was cut off resumes. Layout:
    `recipe.yaml`, `STAGE/metrics.jsonl`, `STAGE/STUDENT/` (an encoder folder with its heads and
    statistics), `STAGE/finished.json` (written last).
    """

    folder: Path
    recipe: Recipe

    @classmethod
    def open(cls, folder: Path) -> Run:
        """Open an existing run folder."""
        if not (folder / _RECIPE).is_file():
            raise InputError(f"{folder} is not a run folder: it has no {_RECIPE}")
        return cls(folder, load_recipe(folder / _RECIPE))

    @classmethod
    def start(cls, recipe: Recipe, folder: Path) -> Run:
        """Make the folder, or go on in it.

        What has begun must stay as it was: the data, the seed, and every stage with a folder.
        Stages that have not begun may be changed, added or removed.
        """
        path = folder / _RECIPE
        if path.exists():
            before = load_recipe(path)
            begun = {name for name in before.stages if (folder / name).is_dir()}
            difference = begun and _difference(_settled(before, begun), _settled(recipe, begun))
            if difference:
                raise InputError(
                    f"{folder} was begun with another recipe ({difference}): name another folder "
                    "with --run, or delete this one"
                )
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, dump_recipe(recipe))
        return cls(folder, recipe)

    def finished(self, stage: str) -> bool:
        """Whether the stage has ended."""
        return (self.folder / stage / _FINISHED).is_file()

    def student(self, stage: str, student: str | None = None) -> DistilledStudent:
        """A finished student of a stage, by default the stage's only one."""
        return load_student(self.student_folder(stage, student))

    def student_folder(self, stage: str, student: str | None = None) -> Path:
        """Where a finished student of a stage lies, by default the stage's only one."""
        students = list(self.recipe.stages[stage].students)
        if not self.finished(stage):
            raise InputError(f"{self.folder}: stage {stage} has not ended; run distill again")
        if student is None and len(students) > 1:
            raise InputError(
                f"{self.folder / stage} has several students: name one of {', '.join(students)}"
            )
        return self.folder / stage / (student or students[0])


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
    folder = run.folder / name
    teachers = _load_all(run, name, "teachers", config.teachers)
    students = _load_all(run, name, "students", config.students)
    stage = Stage(name, config, teachers, students, run.recipe.seed)
    carried = _carry_over(run, stage)
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
    for key, encoder in students.items():
        heads = cast(nn.ModuleDict, stage.heads[key])
        save_student(
            folder / key, encoder, dict(heads.items()), dict(stage.statistics.items()), info
        )
    finished = {"broken_images": sorted(trainer.broken.names), **info}
    write_atomically(folder / _FINISHED, json.dumps(finished, indent=2))
    _tidy(folder)


def _tidy(stage_folder: Path) -> None:
    """Remove what a finished stage needs no more, and what killed writes left behind."""
    for path in (stage_folder / "checkpoints", *stage_folder.glob(".*")):
        shutil.rmtree(path, ignore_errors=True)


def _load_all(
    run: Run, stage: str, kind: str, members: Mapping[str, TeacherConfig | StudentConfig]
) -> dict[str, Encoder]:
    """The networks of a stage. Random weights are a function of (seed, stage, name) alone."""
    loaded = {}
    for name, member in members.items():
        torch.manual_seed(derive_seed(run.recipe.seed, stage, kind, name))
        try:
            if member.encoder.startswith(STAGE_PREFIX):
                loaded[name] = run.student(*run.recipe.resolve(member.encoder)).encoder
            elif Path(member.encoder).is_dir():
                loaded[name] = encoders.load(member.encoder)
            else:
                loaded[name] = encoders.create(
                    member.encoder, pretrained=member.pretrained, **member.args
                )
        except InputError as error:
            raise InputError(f"stages.{stage}.{kind}.{name}: {error}") from None
    return loaded


def _carry_over(run: Run, stage: Stage) -> bool:
    """Take heads and statistics from the stage that the students come from.

    Statistics are taken only when every student brings the same ones for every teacher, because
    heads are trained towards tokens standardized in one particular way. True if they were.
    """
    sources = {
        key: run.recipe.resolve(student.encoder)
        for key, student in stage.config.students.items()
        if student.encoder.startswith(STAGE_PREFIX) and student.keep_heads
    }
    if len(sources) < len(stage.students) or len({s for s, _ in sources.values()}) > 1:
        return False
    earlier = run.recipe.stages[next(iter(sources.values()))[0]]
    if not _same_teachers(earlier, stage.config):
        return False
    for key, (source, student) in sources.items():
        finished = run.student(source, student)
        for teacher in stage.teachers:
            heads = cast(nn.ModuleDict, stage.heads[key])
            heads[teacher].load_state_dict(finished.heads[teacher].state_dict())
            stage.statistics[teacher].load_state_dict(finished.statistics[teacher].state_dict())
    return True


def _same_teachers(earlier: StageConfig, later: StageConfig) -> bool:
    def identity(stage: StageConfig) -> dict[str, Any]:
        return {k: (t.encoder, t.args, t.pretrained) for k, t in stage.teachers.items()}

    return identity(earlier) == identity(later) and earlier.head_hidden == later.head_hidden


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


def _settled(recipe: Recipe, stages: set[str]) -> dict[str, Any]:
    """The part of a recipe that may not change once `stages` have begun."""
    told = recipe.model_dump()
    kept = {name: stage for name, stage in told["stages"].items() if name in stages}
    return {"seed": told["seed"], "data": told["data"], "stages": kept}


def _difference(before: Any, now: Any, path: str = "") -> str | None:
    """The first field in which two resolved recipes differ, with both values."""
    if path.split(".")[-1] in _WITHOUT_EFFECT:
        return None
    if isinstance(before, dict) and isinstance(now, dict):
        for key in [*before, *(k for k in now if k not in before)]:
            found = _difference(before.get(key), now.get(key), f"{path}.{key}" if path else key)
            if found:
                return found
        return None
    return None if before == now else f"{path}: {before} then, {now} now"
