"""Recipes: typed, validated chains of stages, read from YAML."""

from __future__ import annotations

from typing import Annotated, Literal, Self

import yaml
from pydantic import Field, model_validator
from torch import nn

from openeupe.config import Config, Overrides, Written, load_settings, parsed_overrides
from openeupe.data import DataConfig
from openeupe.distillation.encoder_settings import EncoderConfig, StudentConfig, TeacherConfig
from openeupe.distillation.loss import LossConfig
from openeupe.distillation.optimizer import OptimizerConfig
from openeupe.distillation.standardize import StatisticsConfig
from openeupe.distillation.track import TrackerName
from openeupe.durations import Duration
from openeupe.encoders.resolver import check_code
from openeupe.encoders.sources import EarlierStage
from openeupe.errors import InputError
from openeupe.limits import BATCH, SEED, STEPS, VIEWS, WIDTH
from openeupe.names import Name

FORMAT = 2  # of resolved recipes; format 1 has other names of settings

# Names of a stage's own folders, next to those of its students.
_OUR_FOLDERS = {
    ("students", name)
    for name in ("teacher_cache", "checkpoints", "tensorboard", "evaluations", "wandb", "wandb-run",
                 "mlflow-run")
}  # fmt: skip

Precision = Annotated[
    Literal["auto", "fp32", "bf16"],
    Field(
        description="of autocast; auto: bf16 where the device has instructions for it, else fp32"
    ),
]

TeacherPrecision = Annotated[
    Literal["auto", "fp32", "bf16", "fp8"],
    Field(
        description="as student_precision; fp8: matrix products of the blocks in 8-bit floats, "
        "on GPUs of compute capability 8.9 or newer; the quantization error is reported before "
        "training"
    ),
]


class StageConfig(Config):
    """Frozen teachers, trainable students, resolutions and schedule of one stage."""

    teachers: dict[Name, TeacherConfig] = Field(min_length=1)
    students: dict[Name, StudentConfig] = Field(min_length=1)
    steps: int = Field(gt=0, le=STEPS, description="training iterations")
    batch_size: int = Field(gt=0, le=BATCH, description="images per step, over all devices")
    head_hidden: int = Field(
        gt=0,
        le=WIDTH,
        description="adapter hidden width (paper: 1536, then 3072 in stages 2 and 3)",
    )
    head_init: Literal["random", "ridge"] = Field(
        "random",
        description="ridge: the last layers of adapter heads that no earlier stage brings are "
        "fitted by ridge regression before training; not in the paper",
    )
    optimizer: OptimizerConfig
    loss: LossConfig = LossConfig()
    statistics: StatisticsConfig = StatisticsConfig()
    teacher_precision: TeacherPrecision = "auto"
    student_precision: Precision = "auto"
    views: int | None = Field(
        None,
        gt=0,
        le=VIEWS,
        description="number of fixed augmentations per image, cycled (with weights of a manifest: "
        "equally often); null: a new one every time",
    )
    teacher_cache: Literal["none", "bf16", "int8", "auto"] = Field(
        "none",
        description="compute the teachers' outputs once for all views, and cache them as; auto: "
        "bf16 where that saves a fifth of the stage's compute, with one of `views` for every four "
        "times that an image is drawn, unless `views` is given",
    )
    teacher_cache_path: str | None = Field(
        None,
        description="folder of the cache, which is not deleted; default: inside the run, until "
        "the stage ends",
    )
    shard: Literal["auto", "never", "always"] = Field(
        "auto",
        description="shard networks over the processes of a node; auto: the largest ones, "
        "until weights and optimizer states fill no more than half of the memory",
    )
    accumulate: int = Field(
        1,
        gt=0,
        le=BATCH,
        description="parts in which a process takes its images of a step; saves memory",
    )
    compile: Literal["none", "teachers", "all"] = Field(
        "none", description="compile networks by torch.compile, for each of their resolutions"
    )
    log_every: int = Field(50, gt=0, le=STEPS, description="steps between metrics")
    checkpoint_every: int = Field(1000, gt=0, le=STEPS, description="steps between checkpoints")

    @model_validator(mode="after")
    def _what_can_be_cached(self) -> Self:
        if self.teacher_cache == "none" and self.teacher_cache_path is not None:
            raise ValueError(
                "teacher_cache_path has no effect with teacher_cache: none: set teacher_cache, or "
                "leave teacher_cache_path out"
            )
        if self.teacher_cache in ("bf16", "int8"):
            if self.views is None:
                raise ValueError("teacher_cache needs views: set the number per image")
            several = [name for name, t in self.teachers.items() if len(t.resolution) > 1]
            if several:
                raise ValueError(
                    f"teachers.{several[0]}.resolution: teacher_cache needs one, not several"
                )
        return self

    @model_validator(mode="after")
    def _known_teachers(self) -> Self:
        for name, student in self.students.items():
            for teacher in student.teachers or ():
                if teacher not in self.teachers:
                    raise ValueError(
                        f"students.{name}.teachers: the stage has no teacher {teacher!r} "
                        f"({', '.join(self.teachers)})"
                    )
        used = {teacher for name in self.students for teacher in self.teachers_of(name)}
        for teacher in self.teachers:
            if teacher not in used:
                raise ValueError(f"teachers.{teacher}: no student has this teacher: leave it out")
        return self

    def teachers_of(self, student: str) -> tuple[str, ...]:
        """Teachers that a student is distilled from; default: all of the stage."""
        return self.students[student].teachers or tuple(self.teachers)

    def optimizer_of(self, student: str) -> OptimizerConfig:
        """Optimizer settings of a student: its own, or else the stage's."""
        own = self.students[student].optimizer
        return own.over(self.optimizer) if own else self.optimizer

    @property
    def largest_resolution(self) -> int:
        """The stage's largest resolution, at which images are cropped."""
        encoders: list[EncoderConfig] = [*self.teachers.values(), *self.students.values()]
        return max(resolution for e in encoders for resolution in e.resolution)


class Recipe(Config):
    """A chain of stages over one data set."""

    name: Name = Field(description="names the run folder")
    seed: int = Field(0, ge=-SEED, le=SEED)
    tracker: TrackerName = Field(
        "tensorboard", description="experiment tracker; the others are optional extras"
    )
    budget: Duration | None = Field(
        None,
        description="time for the whole run, as 90s, 10m or 1.5h: the numbers of steps are chosen "
        "when it begins, by a short measurement; those written here are the stages' shares",
    )
    data: DataConfig
    stages: dict[Name, StageConfig] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _of_this_format(cls, raw: object) -> object:
        if not isinstance(raw, dict) or raw.get("format", FORMAT) == FORMAT:
            return {k: v for k, v in raw.items() if k != "format"} if isinstance(raw, dict) else raw
        raise ValueError(
            f"format {raw['format']}, this version reads {FORMAT}: leave `format` out and rename "
            "the settings that are then reported"
        )

    @model_validator(mode="after")
    def _names_and_references(self) -> Recipe:
        before: list[str] = []
        for name, stage in self.stages.items():
            for kind, encoders in (("teachers", stage.teachers), ("students", stage.students)):
                for key, encoder in encoders.items():
                    field = f"stages.{name}.{kind}.{key}"
                    if not key.replace("-", "_").isidentifier():
                        raise ValueError(f"{field}: a name is made of letters, digits, _ and -")
                    if hasattr(nn.ModuleDict, key) or (kind, key.lower()) in _OUR_FOLDERS:
                        raise ValueError(f"{field}: {key} is a reserved name, choose another")
                    if encoder.earlier:
                        self._check_reference(f"{field}.encoder", encoder.earlier, before)
                    larger = encoder.larger if isinstance(encoder, StudentConfig) else None
                    if larger and larger.earlier:
                        self._check_reference(f"{field}.init", larger.earlier, before)
            before.append(name)
        return self

    def _check_reference(self, field: str, reference: EarlierStage, before: list[str]) -> None:
        stage, student = reference.stage, reference.student
        if stage not in before:
            known = ", ".join(before) or "none: this is the first stage"
            raise ValueError(f"{field}: no earlier stage is named {stage!r} (earlier: {known})")
        students = list(self.stages[stage].students)
        if student is None and len(students) > 1:
            raise ValueError(
                f"{field}: stage {stage!r} has several students, write "
                f"{reference.text}/STUDENT with one of {', '.join(students)}"
            )
        if student is not None and student not in students:
            raise ValueError(
                f"{field}: stage {stage!r} has no student {student!r} ({', '.join(students)})"
            )

    def resolve(self, reference: EarlierStage) -> tuple[str, str]:
        """The stage and the student that `stage:NAME[/STUDENT]` names."""
        student = reference.student or next(iter(self.stages[reference.stage].students))
        return reference.stage, student

    def check_code(self, allow_code: bool) -> None:
        """Refuse encoders of `python:` where code may not be run.

        Raises:
            InputError: naming the field.
        """
        for name, stage in self.stages.items():
            for kind, members in (("teachers", stage.teachers), ("students", stage.students)):
                for key, member in members.items():
                    larger = member.init if isinstance(member, StudentConfig) else None
                    for field, encoder in (("encoder", member.encoder), ("init", larger)):
                        try:
                            check_code(encoder or "", allow_code)
                        except InputError as error:
                            where = f"stages.{name}.{kind}.{key}.{field}"
                            raise InputError(f"{where}: {error}") from None


def load_recipe(
    source: Written, overrides: Overrides | None = None, *, allow_code: bool = False
) -> Recipe:
    """Read a recipe: a YAML file, the name of one that the package carries, or a mapping.

    A recipe may start with `base: NAME_OR_FILE`; it then holds only what differs from the base.
    `overrides` are `key=value` with dotted keys (`stages.proxy.steps=100`) and values in YAML, or
    a mapping; `null` (None) removes a named teacher, student or stage. With `allow_code` its
    encoders may be those of `python:package.module:factory`, whose code runs when they are made.

    Raises:
        InputError: one line with the file, the field and the fix.
    """
    recipe = load_settings(Recipe, "recipe", source, overrides)
    for key, _ in parsed_overrides(overrides):
        _check_reach(recipe, key)
    recipe.check_code(allow_code)
    return recipe


def _check_reach(recipe: Recipe, key: str) -> None:
    """Refuse an override of a stage's optimizer without effect on its students."""
    group, _, field = key.rpartition(".")
    for name, stage in recipe.stages.items():
        own = [s.optimizer.model_fields_set if s.optimizer else () for s in stage.students.values()]
        if group == f"stages.{name}.optimizer" and all(field in fields for fields in own):
            students = (f"stages.{name}.students.{one}" for one in stage.students)
            each = ", ".join(f"{student}.optimizer.{field}" for student in students)
            raise InputError(
                f"override {key} has no effect, each student has its own {field}: override {each}"
            )


def dump_recipe(recipe: Recipe) -> str:
    """Return the resolved recipe as YAML, with every default written out."""
    resolved = {"format": FORMAT, **recipe.model_dump(mode="json")}
    return yaml.safe_dump(resolved, sort_keys=False, width=100)
