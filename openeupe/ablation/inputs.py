"""Identify the images and encoders that a study's stages are trained from.

Addresses of stages contain paths. Whether the contents of these paths are unchanged is checked
here, once per folder.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from openeupe.ablation.study import LoadedStudy
from openeupe.data.sources import source_identity
from openeupe.distillation.precision import resolve_precision
from openeupe.distillation.recipe import Recipe
from openeupe.errors import InputError
from openeupe.files import read_mapping, strict_json, write_atomically
from openeupe.identity import encoder_identity

INPUTS = "inputs.json"
_AUTO = "precision auto"


def check_inputs(loaded: LoadedStudy, root: Path, out: Path) -> None:
    """Compare images and saved encoders with those of earlier commands. Then save them.

    Args:
        root: where the recipes' relative data paths start.

    Raises:
        InputError: if a path now holds something else, so that finished stages would not be its.
    """
    saved = read_mapping(out / INPUTS)
    if not saved and (out / "stages").is_dir() and any((out / "stages").iterdir()):
        raise InputError(
            f"it is unknown what the stages in {out} were trained on ({INPUTS} is missing): name "
            "another folder (`out`)"
        )
    found = _inputs(loaded, root)
    for name, identity in found.items():
        if saved.get(name, identity) != identity:
            raise InputError(
                f"{name} is not what the stages in {out} were trained on: name another folder "
                "(`out`), or put it back"
            )
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / INPUTS, strict_json({**saved, **found}))


def settle_precision(out: Path, device: torch.device, report: Callable[[str], None]) -> None:
    """Record in a study's folder which precision `auto` means.

    Otherwise arms that are trained on another machine could differ in precision.

    Args:
        report: called with a line if it would be another precision on this machine.
    """
    saved, here = read_mapping(out / INPUTS), resolve_precision("auto", device)
    if _AUTO not in saved:
        write_atomically(out / INPUTS, strict_json({**saved, _AUTO: here}))
    elif saved[_AUTO] != here:
        report(f"precision auto is {saved[_AUTO]}, as where {out} began; here it would be {here}")


def settled(recipe: Recipe, out: Path) -> Recipe:
    """The recipe with the precision that `settle_precision` recorded in place of `auto`."""
    auto = read_mapping(out / INPUTS)[_AUTO]
    stages = {}
    for name, stage in recipe.stages.items():
        fields = ("teacher_precision", "student_precision")
        update = {field: auto for field in fields if getattr(stage, field) == "auto"}
        stages[name] = stage.model_copy(update=update)
    return recipe.model_copy(update={"stages": stages})


def rooted(recipe: Recipe, root: Path) -> Recipe:
    """The recipe with its relative data paths starting from `root`."""
    sources = [
        source.model_copy(update={"path": str(root / Path(source.path).expanduser())})
        for source in recipe.data.sources
    ]
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"sources": sources})})


def _inputs(loaded: LoadedStudy, root: Path) -> dict[str, str]:
    """Identities by "images PATH" and "encoder PATH", as the recipes write them."""
    found: dict[str, str] = {}
    for recipe in loaded.recipes.values():
        for source, there in zip(
            recipe.data.sources, rooted(recipe, root).data.sources, strict=True
        ):
            kind = "" if source.kind == "auto" else f" as {source.kind}"
            if (name := f"images {source.path}{kind}") not in found:
                found[name] = source_identity(there)
        for stage in recipe.stages.values():
            for member in (*stage.teachers.values(), *stage.students.values()):
                name = f"encoder {member.encoder}"
                if name not in found and not member.earlier and member.source.brings_weights:
                    found[name] = encoder_identity(member.source.load())
    return found
