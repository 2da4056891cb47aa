"""The packaged recipe `short` for given teachers and a student."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from openeupe.config import Overrides, parsed_overrides
from openeupe.distillation.check import meta_encoder
from openeupe.distillation.recipe import Recipe, load_recipe
from openeupe.errors import InputError

RECIPE = "short"
_STAGE = "stages.student"


def short_recipe(
    teachers: str | Sequence[str],
    student: str,
    *,
    resolution: int = 128,
    overrides: Overrides | None = None,
    allow_code: bool = False,
) -> Recipe:
    """Fill the recipe `short` with teachers and a student.

    One stage of ten minutes, with the training defaults that docs/experiments/students.md reports.

    Example:
        >>> import openeupe
        >>> recipe = openeupe.short_recipe("efficientnet_lite0", "resnet10t")
        >>> recipe.stages["student"].students["student"].encoder
        'resnet10t'

    Args:
        teachers: what `openeupe.load` takes, one or several.
        student: the same, or the name of an architecture, which then starts from random weights.
        resolution: pixels that every encoder sees, rounded down to whole patches of each.
        overrides: further changes, as `openeupe.distill` takes them (`budget=30m`).
        allow_code: whether `python:` encoders may run their functions.

    Raises:
        InputError: for an encoder that is not there or cannot take the resolution.
    """
    names = [teachers] if isinstance(teachers, str) else list(teachers)
    if not names:
        raise InputError("teachers: name at least one")
    members = {f"teachers.{key}": name for key, name in zip(_keys(names), names, strict=True)}
    members["students.student"] = student
    changes: dict[str, Any] = {f"{_STAGE}.teachers.teacher": None}
    for place, name in members.items():
        changes[f"{_STAGE}.{place}"] = {"encoder": name, "resolution": resolution}
    changes |= dict(parsed_overrides(overrides))
    draft = load_recipe(RECIPE, changes, allow_code=allow_code)
    stage = draft.stages["student"]
    for kind, encoders in (("teachers", stage.teachers), ("students", stage.students)):
        for key, member in encoders.items():
            patch = meta_encoder(draft, member, member.args).patch_size
            if member.resolution == (resolution,) and resolution >= patch:
                seen = resolution // patch * patch
                changes.setdefault(f"{_STAGE}.{kind}.{key}.resolution", seen)
    return load_recipe(RECIPE, changes, allow_code=allow_code)


def _keys(names: Sequence[str]) -> list[str]:
    """Keys of a recipe for sources: the last part of each, numbered where two are equal."""
    found: list[str] = []
    for name in names:
        key = re.sub(r"\W", "_", Path(name).name, flags=re.ASCII).strip("_") or "teacher"
        key = key if key[0].isalpha() else f"teacher_{key}"
        found.append(f"{key}_{len(found)}" if key in found else key)
    return found
