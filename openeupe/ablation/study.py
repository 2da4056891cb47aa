"""Studies: recipes x seeds, evaluated encoders and comparisons."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from openeupe.config import (
    Config,
    Overrides,
    check_settings,
    local_or_packaged,
    own_file,
    read_settings,
    with_base,
)
from openeupe.distillation.recipe import Recipe
from openeupe.encoders.resolver import check_code
from openeupe.errors import InputError
from openeupe.evaluation.config import EvaluationConfig
from openeupe.evaluation.suite import Suite, load_suite
from openeupe.evaluation.vlm.benchmarks import VlmBenchmarks
from openeupe.evaluation.vlm.mini import VlmMini
from openeupe.limits import RATE, SEED
from openeupe.names import Name, Title

_Given = Annotated[str, Field(min_length=1)]  # "" would pass for none


class ArmConfig(Config):
    """An encoder to evaluate: of a recipe, or an existing one."""

    recipe: _Given | None = Field(
        None, description="one of the study's recipes, run with every seed"
    )
    stage: _Given | None = Field(None, description="default: the recipe's last")
    student: _Given | None = Field(None, description="needed where the stage has several")
    encoder: _Given | None = Field(None, description="instead of a recipe: what `evaluate` takes")

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.recipe is None) == (self.encoder is None):
            raise ValueError("an arm needs either a recipe or an encoder")
        if self.recipe is None and (self.stage or self.student):
            raise ValueError("stage and student are of a recipe: leave them out, or name a recipe")
        return self


class TableConfig(Config):
    """A table of arms compared with a reference, or of effects. One set of corrected tests."""

    rows: tuple[str, ...] = ()
    reference: _Given | None = Field(None, description="the arm that the rows are compared with")
    effects: dict[Title, tuple[tuple[str, str], ...]] = Field(
        {},
        description="instead of rows: by name, pairs [arm, arm without it] whose mean difference "
        "is tested, as of a teacher in every set that it joins",
    )
    benchmarks: tuple[str, ...] | None = Field(
        None, min_length=1, description="default: all of the suite's"
    )
    note: str = ""

    @model_validator(mode="after")
    def _rows_or_effects(self) -> Self:
        if bool(self.rows) == bool(self.effects) or not all(self.effects.values()):
            raise ValueError(
                "a table needs either rows or effects, and every effect a pair of arms"
            )
        return self

    @property
    def compared(self) -> dict[str, tuple[tuple[str, str], ...]]:
        """Comparisons by name: pairs of each effect, or each row with the reference."""
        if self.effects or self.reference is None:
            return self.effects
        return {row: ((row, self.reference),) for row in self.rows if row != self.reference}

    @property
    def arms(self) -> tuple[str, ...]:
        """All arms of the table, the reference first."""
        paired = (arm for pairs in self.effects.values() for pair in pairs for arm in pair)
        return (*((self.reference,) if self.reference else ()), *self.rows, *paired)


class Study(Config):
    """A study: recipes, seeds and tables."""

    name: Name
    note: str = ""
    seeds: tuple[Annotated[int, Field(ge=-SEED, le=SEED)], ...] = Field((0, 1, 2), min_length=1)
    steps: float = Field(1.0, gt=0, le=RATE, description="factor on the steps of every stage")
    suite: str = Field(description="a packaged suite, or a file next to the study")
    benchmarks: tuple[str, ...] | None = Field(
        None, min_length=1, description="some of the suite's benchmarks"
    )
    evaluation: EvaluationConfig = EvaluationConfig()
    recipes: dict[Name, dict[str, Any]] = Field(
        {}, description="by name; each as a recipe's file, `base` included"
    )
    arms: dict[Title, ArmConfig] = Field(min_length=1)
    tables: dict[Title, TableConfig] = Field({})

    @model_validator(mode="after")
    def _references(self) -> Self:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds {list(self.seeds)}: one seed twice is one run: name others")
        for name, config in self.arms.items():
            _known(f"arms.{name}.recipe", config.recipe, self.recipes)
        for name, table in self.tables.items():
            for arm in table.arms:
                _known(f"tables.{name}", arm, self.arms)
        return self


@dataclass(frozen=True)
class Trained:
    """Source of an arm's encoder."""

    recipe: str
    stage: str
    student: str


@dataclass(frozen=True)
class LoadedStudy:
    """A study with its recipes and its suite read and checked.

    recipes: by name, with the study's factor on their steps; seeds are set later.
    """

    study: Study
    recipes: dict[str, Recipe]
    suite: Suite

    @property
    def benchmarks(self) -> list[str]:
        """The benchmarks that are evaluated."""
        return list(self.study.benchmarks or self.suite.benchmarks)

    def trained(self, arm: str) -> Trained | None:
        """Recipe, stage and student of an arm. None for an encoder that exists."""
        config = self.study.arms[arm]
        if config.recipe is None:
            return None
        stage = config.stage or list(self.recipes[config.recipe].stages)[-1]
        students = list(self.recipes[config.recipe].stages[stage].students)
        return Trained(config.recipe, stage, config.student or students[0])

    def seeds(self, arm: str) -> tuple[int, ...]:
        """The seeds that an arm is run with. One that exists has a single, nameless one."""
        return self.study.seeds if self.study.arms[arm].recipe else (0,)

    def seeded(self, recipe: str, seed: int) -> Recipe:
        """A recipe with a seed of the study."""
        return self.recipes[recipe].model_copy(update={"seed": seed})

    def wanted(self) -> Iterator[tuple[str, int]]:
        """Every (arm, seed) in order of priority.

        The first table's rows, all with the first seed before the second one, then the next
        table's; arms in no table come last.
        """
        groups = [table.arms for table in self.study.tables.values()]
        seen: set[tuple[str, int]] = set()
        for group in (*groups, tuple(self.study.arms)):
            for place in range(len(self.study.seeds)):
                for arm in group:
                    for seed in self.seeds(arm)[place : place + 1]:
                        if (arm, seed) not in seen:
                            seen.add((arm, seed))
                            yield arm, seed


def load_study(
    source: str | Path, overrides: Overrides | None = None, *, allow_code: bool = False
) -> LoadedStudy:
    """Read a study: a YAML file, or the name of one that the package carries.

    Its recipes and its suite are searched next to the file, then in the package. With
    `allow_code` encoders may be those of `python:package.module:factory`, which run code.

    Raises:
        InputError: one line naming the file and field, and the fix.
    """
    study = check_settings(Study, "study", str(source), read_settings("study", source, overrides))
    file = own_file("study", source)
    folder = file.parent if file is not None else None
    recipes = {}
    for name, raw in study.recipes.items():
        label = f"{name} of study {study.name}"
        merged = with_base("recipe", label, {"name": name, **raw}, folder)
        recipe = check_settings(Recipe, "recipe", label, {**merged, "name": name})
        recipes[name] = _stretched(recipe, study.steps)
        recipes[name].check_code(allow_code)
    for name, arm in study.arms.items():
        try:
            check_code(arm.encoder or "", allow_code)
        except InputError as error:
            raise InputError(f"study {study.name}: arms.{name}.encoder: {error}") from None
    suite = local_or_packaged("suite", study.suite, folder, f"study {study.name}: suite")
    loaded = LoadedStudy(study, recipes, load_suite(suite))
    _check(loaded)
    return loaded


def _check(loaded: LoadedStudy) -> None:
    """Validate arms and tables against the recipes and the suite."""
    study, benchmarks = loaded.study, loaded.suite.benchmarks
    for benchmark in study.benchmarks or ():
        _known("benchmarks", benchmark, benchmarks)
    for benchmark in loaded.benchmarks:
        if isinstance(benchmarks[benchmark], VlmMini | VlmBenchmarks):
            raise InputError(
                f"study {study.name}: benchmark {benchmark} fills several, which a study does not "
                "compare: name the others under benchmarks"
            )
    for name, table in study.tables.items():
        for benchmark in table.benchmarks or ():
            _known(f"tables.{name}.benchmarks", benchmark, loaded.benchmarks)
    members = {f"arms.{name}": arm for name, arm in study.arms.items() if arm.recipe}
    for field, one in members.items():
        stages = loaded.recipes[str(one.recipe)].stages
        stage = one.stage or list(stages)[-1]
        _known(f"{field}.stage", stage, stages)
        students = stages[stage].students
        _known(f"{field}.student", one.student, students)
        if one.student is None and len(students) > 1:
            raise InputError(
                f"study {study.name}: {field}.student: stage {stage} has several students: name "
                f"one of {', '.join(students)}"
            )


def _stretched(recipe: Recipe, factor: float) -> Recipe:
    """The recipe with `factor` times the steps, at least one, warm-up included."""
    if factor == 1:
        return recipe
    raw = recipe.model_dump()
    for stage in raw["stages"].values():
        stage["steps"] = max(round(stage["steps"] * factor), 1)
        own = (student["optimizer"] for student in stage["students"].values())
        for optimizer in (stage["optimizer"], *own):
            for key in {"freeze_backbone_steps", "warmup_steps"} & set(optimizer or ()):
                optimizer[key] = math.floor(optimizer[key] * factor)
            if "warmup_steps" in (optimizer or ()):
                optimizer["warmup_steps"] = min(optimizer["warmup_steps"], stage["steps"] - 1)
    return Recipe.model_validate(raw)


def _known(field: str, name: str | None, names: Collection[str]) -> None:
    if name is not None and name not in names:
        raise InputError(f"{field}: there is no {name!r}: use one of {', '.join(names) or 'none'}")
