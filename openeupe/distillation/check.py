"""Validate a recipe against data and encoders."""

from __future__ import annotations

import copy

from openeupe.data import DataConfig, Source, at_hand, check_heldout, open_source
from openeupe.distillation.encoder_settings import EncoderConfig, StudentConfig, TeacherConfig
from openeupe.distillation.initialize import plan_cut
from openeupe.distillation.recipe import Recipe
from openeupe.distillation.track import check_tracker
from openeupe.encoders import Encoder, check_resolution, create
from openeupe.encoders.create import is_name
from openeupe.encoders.encoder import Arguments
from openeupe.encoders.meta import on_meta
from openeupe.encoders.sources import Code, Export, Given
from openeupe.errors import InputError


def check_recipe(recipe: Recipe) -> list[Source]:
    """Validate a recipe against data and encoders before training.

    Data sources are opened, every encoder is built on the meta device, and resolutions are compared
    with patch sizes.

    Returns:
        The data's sources, open.

    Raises:
        InputError: one line with the field and the fix.
    """
    check_tracker(recipe.tracker)
    check_views(recipe)
    sources = check_sources(recipe.data)
    check_networks(recipe)
    return sources


def check_views(recipe: Recipe) -> None:
    """Refuse `views_seed` if no stage has `views`."""
    with_views = any(s.views or s.teacher_cache == "auto" for s in recipe.stages.values())
    if recipe.data.views_seed is not None and not with_views:
        raise InputError(
            "data.views_seed has no effect without views: give a stage views, or leave it out"
        )


def check_sources(data: DataConfig, *, absent: bool = False) -> list[Source]:
    """Open a recipe's sources, and check held-out images against training images.

    Args:
        absent: skip sources that are not on this machine.

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
    """Build every encoder of a recipe on the meta device. Compare resolutions with patch sizes.

    Raises:
        InputError: naming the field.
    """
    for stage_name, stage in recipe.stages.items():
        for kind, members in (("teachers", stage.teachers), ("students", stage.students)):
            for name, member in members.items():
                field = f"stages.{stage_name}.{kind}.{name}"
                try:
                    encoder = meta_encoder(recipe, member, member.args)
                    _check_brought(recipe, member, encoder)
                    for resolution in member.resolution:
                        check_resolution(encoder, resolution)
                    _check_kind(member, encoder)
                    if isinstance(member, StudentConfig):
                        _check_init(recipe, member, encoder)
                except InputError as error:
                    raise InputError(f"{field}: {error}") from None


def meta_encoder(recipe: Recipe, member: EncoderConfig, args: Arguments) -> Encoder:
    """Build an encoder of a recipe on the meta device.

    args: replace those of an encoder with its own weights.
    """
    if member.earlier:
        stage, student = recipe.resolve(member.earlier)
        trained = recipe.stages[stage].students[student]
        return meta_encoder(recipe, trained, trained.args | args)
    source = member.source
    if isinstance(source, Code):
        return copy.deepcopy(source.load(**args)).to("meta")
    if isinstance(source, Given):
        return copy.deepcopy(source.encoder).to("meta")
    name, own = source.describe()
    with on_meta():
        return create(name, **(own | args))


def brings_weights(member: EncoderConfig) -> bool:
    """Whether an encoder always has its own weights, independent of `pretrained`."""
    return member.earlier is not None or member.source.brings_weights


def start_of(student: StudentConfig) -> str | None:
    """Encoder whose weights a student starts from; None for random weights."""
    try:
        brought = brings_weights(student)
    except InputError:  # a path that no longer exists: it had weights
        brought = True
    if student.init:
        return student.init
    return student.encoder if student.pretrained or brought else None


def _check_kind(member: TeacherConfig | StudentConfig, made: Encoder) -> None:
    """Refuse untrainable students, and sizes that an export lacks."""
    source = member.earlier or member.source
    if isinstance(source, Export):
        if isinstance(member, StudentConfig):
            raise InputError(
                f"{source.text} is an exported file, which cannot be trained: name the encoder "
                "that it was made from"
            )
        if member.args:
            raise InputError(f"args: {source.text} is an exported file: leave args out")
        for resolution in member.resolution:
            source.check_size((resolution, resolution))
    if isinstance(member, StudentConfig) and not is_name(made.name):
        raise InputError(
            f"{member.encoder} makes {made.name!r}, which could not be opened again once it is "
            "trained: as a student use an architecture of openeupe or timm"
        )


def _check_init(recipe: Recipe, student: StudentConfig, made: Encoder) -> None:
    """Refuse an `init` network that does not contain the student's shapes."""
    larger = student.larger
    if larger is None:
        return
    if brings_weights(student):
        raise InputError(
            f"init: {student.encoder} brings its own weights: leave init out, or name an "
            "architecture"
        )
    if not larger.earlier and isinstance(larger.source, Export):
        raise InputError(
            f"init: {student.init} is an exported file: name the encoder that it was made from"
        )
    plan_cut(made, meta_encoder(recipe, larger, {}))


def _check_brought(recipe: Recipe, member: TeacherConfig | StudentConfig, made: Encoder) -> None:
    """Check that an encoder's settings fit its saved weights."""
    if not brings_weights(member):
        return
    if member.pretrained is False:
        raise InputError(
            f"pretrained: {member.encoder} brings its own weights: leave pretrained out, or name "
            "an architecture to start at random"
        )
    if not member.args or isinstance(member.earlier or member.source, Code):
        return
    own = meta_encoder(recipe, member, {})
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
    if goes_on and member.earlier and not same_widths:
        raise InputError(
            f"args: {member.args} change the widths of the tokens of {member.encoder}, and its "
            "heads no longer fit: set keep_heads: false"
        )


def check_weights(recipe: Recipe, stages: list[str]) -> None:
    """Load the weights of later stages early, to report missing ones now."""
    checked: list[tuple[str, dict[str, object]]] = []
    for name in stages:
        stage = recipe.stages[name]
        fetched: list[tuple[str, EncoderConfig]] = [
            (f"teachers.{k}", t) for k, t in stage.teachers.items() if t.pretrained
        ]
        for key, student in stage.students.items():
            fetched += [(f"students.{key}", student)] if student.pretrained else []
            fetched += [(f"students.{key}.init", student.larger)] if student.larger else []
        for field, member in fetched:
            if not brings_weights(member) and (member.encoder, member.args) not in checked:
                try:
                    create(member.encoder, pretrained=True, **member.args)
                except InputError as error:
                    raise InputError(f"stages.{name}.{field}: {error}") from None
                checked.append((member.encoder, member.args))
