"""What can be known to fail before work starts, fails here."""

from __future__ import annotations

from typing import Any

import torch

from openeupe import encoders
from openeupe.data import check_heldout, open_source
from openeupe.distill.recipe import STAGE_PREFIX, Recipe
from openeupe.distill.track import check_tracker
from openeupe.encoders import Encoder, check_side
from openeupe.errors import InputError


def check_recipe(recipe: Recipe) -> None:
    """Hold a recipe against the world: data sources are opened, every encoder is built on the
    meta device, and each resolution is held against its encoder's patch size.

    Raises:
        InputError: one line naming the field and the mend.
    """
    check_tracker(recipe.tracker)
    opened = []
    for i, source in enumerate(recipe.data.sources):
        try:
            opened.append(open_source(source))
        except InputError as error:
            raise InputError(f"data.sources.{i}: {error}") from None
    check_heldout(recipe.data.sources, opened)
    for stage_name, stage in recipe.stages.items():
        for kind, members in (("teachers", stage.teachers), ("students", stage.students)):
            for name, member in members.items():
                field = f"stages.{stage_name}.{kind}.{name}"
                try:
                    encoder = meta_encoder(recipe, member.encoder, member.args)
                    for side in member.resolution:
                        check_side(encoder, side)
                except InputError as error:
                    raise InputError(f"{field}: {error}") from None


def meta_encoder(recipe: Recipe, reference: str, args: dict[str, Any]) -> Encoder:
    """The encoder that a recipe names, without weights or memory, on the meta device."""
    if reference.startswith(STAGE_PREFIX):
        stage, student = recipe.resolve(reference)
        source = recipe.stages[stage].students[student]
        return meta_encoder(recipe, source.encoder, source.args)
    if encoders.is_stored(reference):
        reference, args = encoders.describe(reference)
    with torch.device("meta"):
        return encoders.create(reference, **args)


def check_weights(recipe: Recipe, stages: list[str]) -> None:
    """Load once what later stages will need from outside, so that a lack shows now."""
    checked: list[tuple[str, dict[str, Any]]] = []
    for name in stages:
        stage = recipe.stages[name]
        for kind, members in (("teachers", stage.teachers), ("students", stage.students)):
            for key, member in members.items():
                outside = not member.encoder.startswith(STAGE_PREFIX)
                if outside and member.pretrained and (member.encoder, member.args) not in checked:
                    try:
                        if not encoders.is_stored(member.encoder):
                            encoders.create(member.encoder, pretrained=True, **member.args)
                    except InputError as error:
                        raise InputError(f"stages.{name}.{kind}.{key}: {error}") from None
                    checked.append((member.encoder, member.args))
