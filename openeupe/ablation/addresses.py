"""Content addresses of a study's stages.

A stage's result is a function of the seed, the data, its settings and the stages that it
begins from. Two recipes that agree in these share the stage, which is then trained once; a changed
setting gives another address, and earlier results stay.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from openeupe.distillation.encoder_settings import EncoderConfig
from openeupe.distillation.recipe import Recipe
from openeupe.distillation.run_folder import data_that_count, settings_that_count
from openeupe.encoders.sources import EarlierStage


def address(recipe: Recipe, stage: str) -> str:
    """The stage's name and a hash (12 digits) of what determines it."""
    config = recipe.stages[stage]
    settings: dict[str, object] = {
        "stage": stage,
        "seed": recipe.seed,
        "data": data_that_count(recipe.data),
        "settings": settings_that_count(config),
        "from": {r.text: address(recipe, r.stage) for r in _references(recipe, stage)},
    }
    text = json.dumps(settings, sort_keys=True)
    return f"{stage}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def needs(recipe: Recipe, stage: str) -> list[str]:
    """All earlier stages that a stage depends on, in order."""
    found: set[str] = set()
    for reference in _references(recipe, stage):
        found |= {reference.stage, *needs(recipe, reference.stage)}
    return [name for name in recipe.stages if name in found]


def only(recipe: Recipe, stages: list[str]) -> Recipe:
    """The recipe reduced to some of its stages."""
    return recipe.model_copy(update={"stages": {name: recipe.stages[name] for name in stages}})


def lineage(recipe: Recipe, stage: str, student: str) -> Recipe:
    """The recipe reduced to one student and its ancestors."""
    kept: dict[str, set[str]] = {}

    def follow(stage: str, student: str) -> None:
        if student in kept.setdefault(stage, set()):
            return
        kept[stage].add(student)
        config = recipe.stages[stage]
        members: list[EncoderConfig] = [config.teachers[t] for t in config.teachers_of(student)]
        for member in (config.students[student], *members):
            if member.earlier:
                follow(*recipe.resolve(member.earlier))

    follow(stage, student)
    stages = {}
    for name, config in recipe.stages.items():
        if name in kept:
            students = {k: s for k, s in config.students.items() if k in kept[name]}
            used = {t for k in students for t in config.teachers_of(k)}
            teachers = {k: t for k, t in config.teachers.items() if k in used}
            stages[name] = config.model_copy(update={"students": students, "teachers": teachers})
    return recipe.model_copy(update={"stages": stages})


def stage_folder(out: Path, recipe: Recipe, stage: str) -> Path:
    """Folder of a stage."""
    return out / "stages" / address(recipe, stage)


def link_run(out: Path, recipe: Recipe, stage: str) -> tuple[Path, Recipe]:
    """Create a run folder of links to the stages up to `stage`.

    Links are replaced each time; other files stay. Returns it with the reduced recipe.
    """
    folder = out / "runs" / address(recipe, stage)
    folder.mkdir(parents=True, exist_ok=True)
    for link in list(folder.iterdir()):
        if link.is_symlink():
            link.unlink()
    (folder / "recipe.yaml").unlink(missing_ok=True)  # data may have moved since
    names = [*needs(recipe, stage), stage]
    for name in names:
        kept = stage_folder(out, recipe, name)
        kept.mkdir(parents=True, exist_ok=True)
        # Relative, so that the study's folder can be moved.
        (folder / name).symlink_to(Path("..", "..", "stages", kept.name), target_is_directory=True)
    return folder, only(recipe, names)


def evaluation_folder(out: Path, recipe: Recipe, stage: str, student: str, suite: str) -> Path:
    """Folder of the results of a finished student."""
    return stage_folder(out, recipe, stage) / "evaluations" / suite / student


def _references(recipe: Recipe, stage: str) -> list[EarlierStage]:
    config = recipe.stages[stage]
    members: list[EncoderConfig] = [*config.teachers.values(), *config.students.values()]
    found = {earlier for member in members if (earlier := member.earlier)}
    return sorted(found, key=lambda reference: reference.text)
