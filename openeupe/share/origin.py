"""What is known of an encoder's making: recipe, data, teachers, results; told by the files."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from openeupe.distill.chain import chains
from openeupe.distill.check import start_of
from openeupe.distill.recipe import STAGE_PREFIX, Recipe, dump_recipe
from openeupe.distill.run_folder import Run
from openeupe.distill.saved import read_info
from openeupe.encoders import Encoder, is_published
from openeupe.encoders.create import is_name
from openeupe.encoders.hub import HUB
from openeupe.encoders.licences import Licence, licence_of
from openeupe.evaluate.saved import read_results
from openeupe.evaluate.suite import fits, of_encoder
from openeupe.files import folder_name
from openeupe.loading import student_folder

DISTILLATION = "distillation.json"
_UNKNOWN = Licence("unknown", "what it was made from is not here: ask whoever made it")


@dataclass
class Origin:
    """Where an encoder comes from.

    experts: names of the encoders at the beginning of the chain (frozen teachers, and published
        weights that a student started from), with their licences.
    info: `distillation.json` of the stage that finished it; empty if it was not distilled here.
    recipe: of the run, if the run folder lies around the encoder.
    sides: pixels at which the last stage trained it, where the recipe is known.
    results: the contents of each `results.json` of `openeupe evaluate`.
    """

    experts: dict[str, Licence] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)
    recipe: Recipe | None = None
    sides: tuple[int, ...] = ()
    results: list[dict[str, Any]] = field(default_factory=list)

    @property
    def recipe_yaml(self) -> str:
        """The resolved recipe; of paths only the last name: the card is for others."""
        assert self.recipe is not None
        told = for_others(yaml.safe_load(dump_recipe(self.recipe)))
        return yaml.safe_dump(told, sort_keys=False, width=100)


def stored_folder(source: str) -> Path | None:
    """The folder of the encoder that `source` names; None for names, hubs and released files."""
    folder = student_folder(Path(source))
    return Path(source) if folder is None and (Path(source) / "config.json").is_file() else folder


def origin(source: str, student: Path | None, encoder: Encoder) -> Origin:
    """What the files say of `source` (as the user named it), finished as the folder `student`.

    Results count only if they were found for just these weights and heads.
    """
    found = Origin()
    if student is None:
        if not source.startswith("untrained:"):
            found.experts[source] = licence_of(source)
        found.results = _results(
            [Path("evaluations") / folder_name(source)], of_encoder(encoder, {})
        )
        return found
    found.info = _info(student)
    run_folder = student.parent.parent
    if found.info and (run_folder / "recipe.yaml").is_file():
        recipe = Run.open(run_folder).recipe
        own = recipe.stages.get(student.parent.name)
        told = (found.info.get("run"), found.info.get("stage"))
        if own and student.name in own.students and told == (recipe.name, student.parent.name):
            found.recipe = recipe
            found.sides = tuple(own.students[student.name].resolution)
    if found.info:
        _add_experts(found.experts, student, found.info, found.recipe)
    if found.recipe is None and (not found.info or (student / "README.md").is_file()):
        # Only its card names the weights that it started from.
        found.experts.setdefault(student.resolve().name, licence_of(str(student)))
    places = {student, student.parent, Path(source)}
    identity = of_encoder(encoder, chains(student))
    found.results = _results([place / "evaluations" for place in places], identity)
    return found


def _info(student: Path) -> dict[str, Any]:
    path = student / DISTILLATION
    return read_info(path) if path.is_file() else {}


def _add_experts(
    experts: dict[str, Licence], student: Path, info: dict[str, Any], recipe: Recipe | None
) -> None:
    """Follow the teachers, and what the student started from, back through the run's stages."""
    before = [told["encoder"] for told in info.get("teachers", {}).values()]
    if recipe is not None:
        start = start_of(recipe.stages[student.parent.name].students[student.name])
        before += [start] if start else []
    elif info.get("start"):
        before.append(info["start"]["encoder"])
    for encoder in before:
        if not encoder.startswith(STAGE_PREFIX):
            name = encoder if is_published(encoder) else Path(encoder).name
            experts.setdefault(name, licence_of(encoder))
            continue
        stage, name = recipe.resolve(encoder) if recipe is not None else ("", "")
        earlier = student.parent.parent / stage / name
        made = _info(earlier) if recipe is not None else {}
        if made:
            _add_experts(experts, earlier, made, recipe)
        else:
            experts.setdefault(encoder, _UNKNOWN)


def for_others(settings: Any) -> Any:
    """Settings without folders of this machine: of a path only the last name is left."""
    if isinstance(settings, list):
        return [for_others(value) for value in settings]
    if not isinstance(settings, dict):
        path = isinstance(settings, str) and Path(settings).is_absolute()
        return Path(settings).name if path else settings
    # An encoder's name alone could be that of a published one.
    return {
        key: f"local/{Path(value).name}" if key == "encoder" and _is_path(value)
        else for_others(value)
        for key, value in settings.items()
    }  # fmt: skip


def _is_path(encoder: Any) -> bool:
    if not isinstance(encoder, str) or encoder.startswith((STAGE_PREFIX, HUB)):
        return False
    return ("/" in encoder or os.sep in encoder) and not is_name(encoder)


def _results(folders: list[Path], own: dict[str, Any]) -> list[dict[str, Any]]:
    paths = sorted({path.resolve() for f in folders for path in f.glob("*/results.json")})
    found = [read_results(path) for path in paths]
    return [
        content
        for content in found
        if content["benchmarks"] and all(fits(one, own) for one in content["benchmarks"].values())
    ]
