"""Recipes: named chains of stages, typed and validated in this one place, read from YAML."""

from __future__ import annotations

import difflib
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, ValidationError, model_validator
from torch import nn

from openeupe.config import Config
from openeupe.data import DataConfig
from openeupe.distill.loss import LossConfig
from openeupe.distill.optimizer import OptimizerConfig
from openeupe.distill.standardize import StatisticsConfig
from openeupe.errors import InputError

STAGE_PREFIX = "stage:"

Side = Annotated[int, Field(gt=0)]
Sides = Annotated[
    tuple[Side, ...],
    BeforeValidator(lambda v: (v,) if isinstance(v, int) else v),
    Field(min_length=1),
]


Precision = Annotated[
    Literal["auto", "fp32", "bf16"],
    Field(
        description="of autocast; auto: bf16 where the device has instructions for it, else fp32"
    ),
]


class EncoderConfig(Config):
    """An encoder of a stage, and the sides at which it sees the images."""

    encoder: str = Field(
        description="one of our names, a timm name, a folder with a saved encoder, or stage:NAME "
        "for the student of an earlier stage"
    )
    resolution: Sides = Field(
        description="side in pixels; with several, each step draws one (paper section 3.1, stage 3)"
    )
    args: dict[str, Any] = Field(default={}, description="arguments for the architecture")


class TeacherConfig(EncoderConfig):
    """A frozen teacher of a stage."""

    pretrained: bool = Field(True, description="take the encoder's published weights")
    cls_weight: float = Field(1.0, ge=0, description="weight of its class-token loss (paper: 1)")
    patch_weight: float = Field(1.0, ge=0, description="gamma of Eq. 7 (paper: 1)")


class StudentConfig(EncoderConfig):
    """A student of a stage: a new network, or one that an earlier stage finished."""

    pretrained: bool = Field(False, description="start from the encoder's published weights")
    keep_heads: bool = Field(
        True,
        description="with stage:NAME, also take its adapter heads and statistics where the teacher "
        "is the same (the released checkpoints hold one pair of heads)",
    )


class StageConfig(Config):
    """One stage: frozen teachers, trainable students, resolutions and schedule."""

    teachers: dict[str, TeacherConfig] = Field(min_length=1)
    students: dict[str, StudentConfig] = Field(min_length=1)
    steps: int = Field(gt=0, description="training iterations")
    batch_size: int = Field(gt=0, description="images a step, over all devices")
    head_hidden: int = Field(
        gt=0, description="adapter hidden width (paper: 1536, then 3072 in stages 2 and 3)"
    )
    optimizer: OptimizerConfig
    loss: LossConfig = LossConfig()
    statistics: StatisticsConfig = StatisticsConfig()
    teacher_precision: Precision = "auto"
    student_precision: Precision = "auto"
    log_every: int = Field(50, gt=0, description="steps between metrics")
    checkpoint_every: int = Field(1000, gt=0, description="steps between checkpoints")

    @property
    def side(self) -> int:
        """The largest side of the stage's pyramid: images are cropped once, at this size."""
        encoders: list[EncoderConfig] = [*self.teachers.values(), *self.students.values()]
        return max(side for e in encoders for side in e.resolution)


class Recipe(Config):
    """A chain of stages over one data set."""

    name: str = Field(pattern=r"^[\w.-]+$", description="names the run folder")
    seed: int = 0
    data: DataConfig
    stages: dict[str, StageConfig] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_and_references(self) -> Recipe:
        earlier: list[str] = []
        for name, stage in self.stages.items():
            for kind, encoders in (("teachers", stage.teachers), ("students", stage.students)):
                for key, encoder in encoders.items():
                    field = f"stages.{name}.{kind}.{key}"
                    if not key.replace("-", "_").isidentifier():
                        raise ValueError(f"{field}: a name is made of letters, digits, _ and -")
                    if hasattr(nn.ModuleDict, key):
                        raise ValueError(f"{field}: {key} is a reserved name, choose another")
                    if encoder.encoder.startswith(STAGE_PREFIX):
                        self._check_reference(f"{field}.encoder", encoder.encoder, earlier)
            earlier.append(name)
        return self

    def _check_reference(self, field: str, reference: str, earlier: list[str]) -> None:
        stage, student = split_reference(reference)
        if stage not in earlier:
            known = ", ".join(earlier) or "none: this is the first stage"
            raise ValueError(f"{field}: no earlier stage is named {stage!r} (earlier: {known})")
        students = list(self.stages[stage].students)
        if student is None and len(students) > 1:
            raise ValueError(
                f"{field}: stage {stage!r} has several students, write "
                f"{STAGE_PREFIX}{stage}/STUDENT with one of {', '.join(students)}"
            )
        if student is not None and student not in students:
            raise ValueError(
                f"{field}: stage {stage!r} has no student {student!r} ({', '.join(students)})"
            )

    def resolve(self, reference: str) -> tuple[str, str]:
        """`stage:NAME[/STUDENT]` -> (stage, student)."""
        stage, student = split_reference(reference)
        return stage, student or next(iter(self.stages[stage].students))


def split_reference(reference: str) -> tuple[str, str | None]:
    """`stage:NAME[/STUDENT]` -> (stage, student or None)."""
    stage, _, student = reference.removeprefix(STAGE_PREFIX).partition("/")
    return stage, student or None


def load_recipe(source: str | Path, overrides: list[str] | None = None) -> Recipe:
    """Read a recipe: a YAML file, or the name of one that the package carries.

    A recipe may start with `base: NAME_OR_FILE`; it then holds only what differs from the base.
    `overrides` are `key=value` with dotted keys (`stages.proxy.steps=100`); values are YAML, and
    `null` removes a named teacher, student or stage.

    Raises:
        InputError: one line naming the file and field, and the mend.
    """
    raw = _read(source)
    for override in overrides or []:
        key, equals, value = override.partition("=")
        if not equals or not key:
            raise InputError(f"override {override!r}: write it as key=value")
        try:
            parsed = yaml.safe_load(value)
        except yaml.YAMLError:
            raise InputError(f"override {override!r}: {value!r} is not a YAML value") from None
        patch: Any = parsed
        for part in reversed(key.split(".")):
            patch = {part: patch}
        raw = _merge(raw, patch)
    try:
        return Recipe.model_validate(raw)
    except ValidationError as error:
        raise InputError(f"recipe {source}: {_first_line(error)}") from None


def recipe_names() -> list[str]:
    """Names of the recipes that the package carries."""
    folder = resources.files("openeupe") / "recipes"
    return sorted(
        f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml")
    )


def dump_recipe(recipe: Recipe) -> str:
    """The resolved recipe as YAML: every number, nothing inherited."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, width=100)


def _read(source: str | Path, seen: tuple[str, ...] = ()) -> dict[str, Any]:
    name = str(source)
    if name in seen:
        raise InputError(f"recipe {name}: its base leads back to itself ({' -> '.join(seen)})")
    packaged = resources.files("openeupe") / "recipes" / f"{name.removesuffix('.yaml')}.yaml"
    path = Path(name)
    if path.is_file():
        file: Any = path
    elif "/" not in name and packaged.is_file():
        file = packaged
    else:
        close = difflib.get_close_matches(name, recipe_names(), n=1)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(recipe_names())}"
        raise InputError(f"recipe {name}: no such file, nor a recipe of the package; {hint}")
    try:
        raw = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        line = " ".join(str(error).split())
        raise InputError(f"recipe {name} is not valid YAML: {line}") from None
    if not isinstance(raw, dict):
        raise InputError(f"recipe {name}: a recipe is a mapping with name, data and stages")
    base = raw.pop("base", None)
    if base is None:
        return raw
    if not isinstance(base, str):
        raise InputError(f"recipe {name}: base must be the name or file of a recipe")
    beside = path.parent / base
    return _merge(
        _read(beside if path.is_file() and beside.is_file() else base, (*seen, name)), raw
    )


def _merge(base: Any, patch: Any) -> Any:
    """Deep merge of mappings; `null` removes a key; numbers as keys reach into a list."""
    if isinstance(base, list) and isinstance(patch, dict):
        changes = {str(key): value for key, value in patch.items()}
        if set(changes) <= {str(i) for i in range(len(base))}:
            return [_merge(item, changes.get(str(i), item)) for i, item in enumerate(base)]
    if not isinstance(base, dict) or not isinstance(patch, dict):
        return patch
    merged = dict(base)
    for key, value in patch.items():
        if value is None and isinstance(base.get(key), dict):
            del merged[key]
        else:
            merged[key] = _merge(base.get(key), value)
    return merged


def _first_line(error: ValidationError) -> str:
    """The first complaint of pydantic as `field: what is wrong`, with a guess at a typo."""
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = "unknown key"
        close = difflib.get_close_matches(str(first["loc"][-1]), _all_keys(), n=1)
        if close:
            message += f", did you mean {close[0]}?"
    elif first["type"] == "missing":
        message = "is missing"
    elif first["type"] != "value_error":
        message += f" (got {first['input']!r})"
    more = len(error.errors()) - 1
    tail = f" (and {more} more)" if more else ""
    return f"{field}: {message}{tail}" if field else f"{message}{tail}"


def _all_keys() -> list[str]:
    keys: set[str] = set()

    def walk(schema: Any) -> None:
        if isinstance(schema, dict):
            keys.update(schema.get("properties", {}))
            for value in schema.values():
                walk(value)

    walk(Recipe.model_json_schema())
    return sorted(keys)
