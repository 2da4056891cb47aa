"""What a stage begins with: its networks, and what an earlier stage hands on."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from typing import cast

from torch import nn

from openeupe.distillation.check import brings_weights
from openeupe.distillation.encoder_settings import EncoderConfig, StudentConfig, TeacherConfig
from openeupe.distillation.initialize import initialize
from openeupe.distillation.recipe import Recipe, StageConfig
from openeupe.distillation.run_folder import Run
from openeupe.distillation.stage import Stage
from openeupe.encoders import Encoder, create
from openeupe.encoders.create import remade
from openeupe.encoders.encoder import Arguments
from openeupe.encoders.sources import Code, Given
from openeupe.errors import InputError
from openeupe.seeds import derive_seed, seeded

_LOGGER = logging.getLogger(__name__)


def orphaned(run: Run, config: StageConfig) -> list[str]:
    """Students of a stage whose predecessor was dropped."""
    found = []
    for key, student in config.students.items():
        before = student.earlier or (student.larger.earlier if student.larger else None)
        if before:
            stage, source = run.recipe.resolve(before)
            if source in run.dropped(stage):
                found.append(key)
    return found


def load_networks(
    run: Run, stage: str, kind: str, members: Mapping[str, TeacherConfig | StudentConfig]
) -> dict[str, Encoder]:
    """The networks of a stage. Random weights are a function of (seed, stage, name) alone."""
    loaded = {}
    for name, member in members.items():
        try:
            with seeded(derive_seed(run.recipe.seed, stage, kind, name)):
                loaded[name] = _load(run, member, pretrained=bool(member.pretrained))
                larger = member.larger if isinstance(member, StudentConfig) else None
                if larger:
                    source = _load(run, larger, pretrained=True)
                    cut = initialize(loaded[name], source)
                    left = f"; not found there: {', '.join(cut.left)}" if cut.left else ""
                    _LOGGER.info(
                        "%s: %s tensors cut out of %s%s", name, len(cut.taken), source.name, left
                    )
        except InputError as error:
            raise InputError(f"stages.{stage}.{kind}.{name}: {error}") from None
    return loaded


def _load(run: Run, member: EncoderConfig, *, pretrained: bool = False) -> Encoder:
    if member.earlier:
        source = run.student(*run.recipe.resolve(member.earlier)).encoder
        return _with_args(source, member.args)
    return load_member(member, pretrained)


def load_member(member: EncoderConfig, pretrained: bool) -> Encoder:
    """Load an external encoder of a recipe, with weights.

    Args:
        member: a teacher or a student.
        pretrained: whether an architecture gets its published weights rather than random ones.
    """
    source = member.source
    if isinstance(source, Code):
        return source.load(**member.args)
    if isinstance(source, Given):  # a copy: a stage moves and freezes its teachers
        return copy.deepcopy(source.encoder)
    if source.brings_weights:
        return _with_args(source.load(), member.args)
    return create(member.encoder, pretrained=pretrained, **member.args)


def _with_args(encoder: Encoder, args: Arguments) -> Encoder:
    """The same weights in an architecture made with other arguments."""
    if not args:
        return encoder
    try:
        return remade(encoder, **args).eval()
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise InputError(
            f"the weights of {encoder.name} do not fit args {args} ({reason}): "
            "leave out what changes them"
        ) from None


def carry_over(run: Run, stage: Stage) -> bool:
    """Take heads and statistics from the stage that the students come from.

    Statistics are taken only when every student brings the same ones for every teacher, because
    heads are trained towards tokens standardized in one particular way. True if they were.
    """
    sources = carried_from(run.recipe, stage.config)
    for key, (source, student) in sources.items():
        finished = run.student(source, student)
        for teacher in stage.config.teachers_of(key):
            before = finished.info.teachers[teacher].identity
            if before not in (None, stage.identities[teacher]):
                raise InputError(
                    f"stages.{stage.name}.students.{key}: its heads and statistics are of another "
                    f"{teacher} than the one that is there now: put that one back, or set "
                    "keep_heads: false"
                )
            heads = cast(nn.ModuleDict, stage.heads[key])
            heads[teacher].load_state_dict(finished.heads[teacher].state_dict())
            stage.statistics[teacher].load_state_dict(finished.statistics[teacher].state_dict())
    return bool(sources)


def carried_from(recipe: Recipe, config: StageConfig) -> dict[str, tuple[str, str]]:
    """(stage, student) that each student's heads and all statistics come from; empty: none do."""
    sources = {
        key: recipe.resolve(student.earlier)
        for key, student in config.students.items()
        if student.earlier and student.keep_heads
    }
    if len(sources) < len(config.students) or len({s for s, _ in sources.values()}) > 1:
        return {}
    earlier = recipe.stages[next(iter(sources.values()))[0]]
    if not _same_teachers(earlier, config):
        return {}
    for key, (_, student) in sources.items():
        if not set(config.teachers_of(key)) <= set(earlier.teachers_of(student)):
            return {}
    return sources


def _same_teachers(earlier: StageConfig, later: StageConfig) -> bool:
    """Whether both stages have the same teachers and width of heads."""
    if any(not t.pretrained and not brings_weights(t) for t in later.teachers.values()):
        return False  # random weights are another stage's own

    def identity(stage: StageConfig) -> dict[str, object]:
        return {k: (t.encoder, t.args, t.pretrained) for k, t in stage.teachers.items()}

    return identity(earlier) == identity(later) and earlier.head_hidden == later.head_hidden
