"""Encoders of a Python program as teachers of a recipe."""

from __future__ import annotations

from collections.abc import Mapping

from openeupe.config import check_settings
from openeupe.distillation.encoder_settings import TeacherConfig
from openeupe.distillation.recipe import Recipe
from openeupe.encoders import Encoder
from openeupe.encoders.resolver import GIVEN


def with_teachers(recipe: Recipe, teachers: Mapping[str, Encoder]) -> Recipe:
    """The recipe with encoders of a Python program as teachers.

    Args:
        recipe: any.
        teachers: by the teacher's name. One that the recipe has is replaced, in each stage; a new
            one joins the teachers of the first stage, at the encoder's own resolution.

    Raises:
        InputError: if a name cannot be that of a teacher.
    """
    stages = dict(recipe.stages)
    for name, encoder in teachers.items():
        having = [key for key, stage in stages.items() if name in stage.teachers]
        new = TeacherConfig(encoder=f"{GIVEN}{name}", resolution=(encoder.resolution,))
        for key in having or list(stages)[:1]:
            own = stages[key].teachers
            configs = {**own, name: own.get(name, new).replaced(name, encoder)}
            stages[key] = stages[key].model_copy(update={"teachers": configs})
    found = recipe.model_copy(update={"stages": stages})
    check_settings(Recipe, "recipe", recipe.name, found.model_dump())  # its names, for one
    return found
