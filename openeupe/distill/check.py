"""What can be known to fail before work starts, fails here."""

from __future__ import annotations

from typing import Any

import torch

from openeupe import encoders
from openeupe.data import DataConfig, Source, at_hand, check_heldout, open_source
from openeupe.distill.recipe import STAGE_PREFIX, Recipe, StudentConfig, TeacherConfig
from openeupe.distill.track import check_tracker
from openeupe.encoders import Encoder, check_side
from openeupe.errors import InputError


def check_recipe(recipe: Recipe) -> list[Source]:
    """Hold a recipe against the world: data sources are opened, every encoder is built on the
    meta device, and each resolution is held against its encoder's patch size.

    Returns:
        The data's sources, open.

    Raises:
        InputError: one line naming the field and the mend.
    """
    check_tracker(recipe.tracker)
    sources = check_sources(recipe.data)
    check_networks(recipe)
    return sources


def check_sources(data: DataConfig, *, absent: bool = False) -> list[Source]:
    """Open the sources of a recipe, and compare them with what they hold out.

    Args:
        absent: leave out sources that are not on this machine.

    Returns:
        The sources, open, in their order.

    Raises:
        InputError: naming the field.
    """
    configs, sources = [], []
    for i, source in enumerate(data.sources):
        if absent and not at_hand(source):
            continue
        try:
            sources.append(open_source(source))
        except InputError as error:
            raise InputError(f"data.sources.{i}: {error}") from None
        configs.append(source)
    check_heldout(configs, sources)
    return sources


def check_networks(recipe: Recipe) -> None:
    """Build every encoder of a recipe on the meta device; compare resolutions with patch sizes.

    Raises:
        InputError: naming the field.
    """
    for stage_name, stage in recipe.stages.items():
        for kind, members in (("teachers", stage.teachers), ("students", stage.students)):
            for name, member in members.items():
                field = f"stages.{stage_name}.{kind}.{name}"
                try:
                    encoder = meta_encoder(recipe, member.encoder, member.args)
                    _check_brought(recipe, member, encoder)
                    for side in member.resolution:
                        check_side(encoder, side)
                except InputError as error:
                    raise InputError(f"{field}: {error}") from None


def meta_encoder(recipe: Recipe, reference: str, args: dict[str, Any]) -> Encoder:
    """The encoder that a recipe names, without weights or memory, on the meta device.

    args: laid over those that an encoder of `brings_weights` was made with.
    """
    if reference.startswith(STAGE_PREFIX):
        stage, student = recipe.resolve(reference)
        source = recipe.stages[stage].students[student]
        return meta_encoder(recipe, source.encoder, source.args | args)
    if encoders.is_stored(reference):
        reference, own = encoders.describe(reference)
        args = own | args
    with torch.device("meta"):
        return encoders.create(reference, **args)


def brings_weights(reference: str) -> bool:
    """Whether an encoder comes with weights of its own, which `pretrained` cannot choose."""
    return reference.startswith(STAGE_PREFIX) or encoders.is_stored(reference)


def start_of(student: StudentConfig) -> str | None:
    """The encoder whose weights a student starts from; None if it starts at random."""
    return student.encoder if brings_weights(student.encoder) or student.pretrained else None


def _check_brought(recipe: Recipe, member: TeacherConfig | StudentConfig, made: Encoder) -> None:
    """Settings of an encoder that brings weights must leave these weights in their place."""
    if not brings_weights(member.encoder):
        return
    if member.pretrained is False:
        raise InputError(
            f"pretrained: {member.encoder} brings its own weights: leave pretrained out, or name "
            "an architecture to start at random"
        )
    if not member.args:
        return
    own = meta_encoder(recipe, member.encoder, {})
    shapes, wanted = (
        {k: tuple(v.shape) for k, v in one.state_dict().items()} for one in (own, made)
    )
    misfit = next((k for k in {**shapes, **wanted} if shapes.get(k) != wanted.get(k)), None)
    if misfit:
        raise InputError(
            f"args: the weights of {member.encoder} do not fit {member.args} ({misfit}: "
            f"{shapes.get(misfit, 'none')} there, {wanted.get(misfit, 'none')} here): leave "
            "out what changes them"
        )
    goes_on = isinstance(member, StudentConfig) and member.keep_heads
    same_widths = (own.cls_dim, own.patch_dim) == (made.cls_dim, made.patch_dim)
    if goes_on and member.encoder.startswith(STAGE_PREFIX) and not same_widths:
        raise InputError(
            f"args: {member.args} change the widths of the tokens of {member.encoder}, and its "
            "heads no longer fit: set keep_heads: false"
        )


def check_weights(recipe: Recipe, stages: list[str]) -> None:
    """Load once what later stages will need from outside, so that a lack shows now."""
    checked: list[tuple[str, dict[str, Any]]] = []
    for name in stages:
        stage = recipe.stages[name]
        for kind, members in (("teachers", stage.teachers), ("students", stage.students)):
            for key, member in members.items():
                outside = not brings_weights(member.encoder)
                if outside and member.pretrained and (member.encoder, member.args) not in checked:
                    try:
                        encoders.create(member.encoder, pretrained=True, **member.args)
                    except InputError as error:
                        raise InputError(f"stages.{name}.{kind}.{key}: {error}") from None
                    checked.append((member.encoder, member.args))
