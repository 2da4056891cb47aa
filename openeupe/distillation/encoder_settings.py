"""Settings of the encoders of a stage: teachers and students."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BeforeValidator, Field, PrivateAttr, model_validator

from openeupe.config import Config
from openeupe.distillation.optimizer import OwnOptimizerConfig
from openeupe.encoders import Encoder
from openeupe.encoders.arguments import RESERVED
from openeupe.encoders.encoder import Arguments
from openeupe.encoders.resolver import GIVEN, earlier_stage, resolve
from openeupe.encoders.sources import EarlierStage, Given, Source
from openeupe.limits import RATE, RESOLUTION

Resolution = Annotated[int, Field(gt=0, le=RESOLUTION)]
Resolutions = Annotated[
    tuple[Resolution, ...],
    BeforeValidator(lambda v: (v,) if isinstance(v, int) else v),
    Field(min_length=1),
]


class EncoderConfig(Config):
    """An encoder of a stage and its input resolutions."""

    encoder: str = Field(
        description="what `openeupe.load` takes, or stage:NAME for a student of an earlier stage"
    )
    resolution: Resolutions = Field(
        description="pixels; with several, each step draws one (paper section 3.1, stage 3)"
    )
    args: Arguments = Field(
        default={},
        description="arguments of the architecture; for stage:NAME and saved encoders they "
        "override the saved ones, if the weights still fit (drop_path_rate, patches)",
    )

    @model_validator(mode="after")
    def _nothing_reserved(self) -> Self:
        if taken := sorted(RESERVED & set(self.args)):
            hint = "write it next to args" if taken[0] == "pretrained" else "leave it out"
            raise ValueError(f"args: {taken[0]} cannot be set here: {hint}")
        return self

    @property
    def earlier(self) -> EarlierStage | None:
        """The earlier stage's student that it names; None for other sources."""
        return earlier_stage(self.encoder)

    @property
    def source(self) -> Source:
        """Where the encoder comes from. `load_recipe` has asked whether code may be run.

        Raises:
            InputError: if nothing of an encoder is there.
        """
        return resolve(self.encoder, allow_code=True)


class TeacherConfig(EncoderConfig):
    """A frozen teacher of a stage."""

    _given: Encoder | None = PrivateAttr(None)
    pretrained: bool = Field(True, description="take the encoder's published weights")
    cls_weight: float = Field(
        1.0, ge=0, le=RATE, description="weight of its class-token loss (paper: 1)"
    )
    patch_weight: float = Field(1.0, ge=0, le=RATE, description="gamma of Eq. 7 (paper: 1)")

    @property
    def source(self) -> Source:
        """Where the encoder comes from, or the encoder that `with_teachers` set."""
        return super().source if self._given is None else Given(self.encoder, self._given)

    def replaced(self, name: str, encoder: Encoder) -> TeacherConfig:
        """Return the same teacher with an encoder that is already in memory."""
        update = {"encoder": f"{GIVEN}{name}", "args": {}, "pretrained": True}
        found = self.model_copy(update=update)
        found._given = encoder
        return found


class StudentConfig(EncoderConfig):
    """A student of a stage: a new network, or one that an earlier stage finished."""

    pretrained: bool | None = Field(
        None,
        description="start from the encoder's published weights; default: random weights. "
        "stage:NAME and saved encoders always use their own",
    )
    init: str | None = Field(
        None,
        min_length=1,
        description="a larger network of the same kind whose weights it starts from: evenly spaced "
        "layers, channels and whole heads (stage:NAME, or a source of `openeupe.load`; an "
        "architecture with its published weights)",
    )
    keep_heads: bool = Field(
        True,
        description="with stage:NAME, also take its adapter heads and statistics where the teacher "
        "is the same (the released checkpoints hold one pair of heads)",
    )
    teachers: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="teachers of the stage that it is distilled from; default: all. Students "
        "with different teachers share one pass of the teachers and the same images",
    )
    checkpoint_activations: bool = Field(
        False, description="activation checkpointing: recompute blocks in the backward pass"
    )
    optimizer: OwnOptimizerConfig | None = Field(
        None, description="settings in which this student's optimizer differs from the stage's"
    )

    @model_validator(mode="after")
    def _one_start(self) -> Self:
        if self.init and self.pretrained:
            raise ValueError("init and pretrained are two starts: leave one of them out")
        return self

    @property
    def larger(self) -> EncoderConfig | None:
        """The network that `init` names."""
        return EncoderConfig(encoder=self.init, resolution=self.resolution) if self.init else None
