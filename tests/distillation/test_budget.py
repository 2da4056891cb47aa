from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from openeupe.data import open_sources
from openeupe.distillation import budget
from openeupe.distillation.budget import StageTime, divide, with_steps
from openeupe.distillation.recipe import Recipe
from openeupe.distillation.run import run_recipe
from openeupe.distillation.run_folder import Run
from openeupe.distributed import Processes
from openeupe.errors import InputError

TIMES = {
    "proxy": StageTime(fixed_s=2.0, step_s=0.5),
    "student": StageTime(fixed_s=1.0, step_s=0.25),
    "finetuned": StageTime(fixed_s=1.0, step_s=1.0),
}


@pytest.fixture
def recipe(raw_recipe: dict[str, Any]) -> Recipe:
    """Stages of 20, 40 and 10 steps."""
    for name, steps in (("proxy", 20), ("student", 40), ("finetuned", 10)):
        raw_recipe["stages"][name]["steps"] = steps
    return Recipe.model_validate(raw_recipe)


def test_the_time_is_divided_in_the_proportions_of_the_recipe(recipe: Recipe) -> None:
    # 4 s of preparation; the recipe's steps take 10 + 10 + 10 s
    assert divide(recipe, TIMES, 34) == {"proxy": 20, "student": 40, "finetuned": 10}
    assert divide(recipe, TIMES, 64) == {"proxy": 40, "student": 80, "finetuned": 20}
    assert divide(recipe, TIMES, 6) == {"proxy": 1, "student": 2, "finetuned": 1}
    with pytest.raises(InputError, match=r"budget is too small.* take 3 s more"):
        divide(recipe, TIMES, 3)


def test_what_is_counted_in_steps_is_scaled_along(raw_recipe: dict[str, Any]) -> None:
    stage = raw_recipe["stages"]["proxy"]
    stage |= {"steps": 100, "log_every": 50}
    stage["optimizer"] = {"lr": 1e-3, "warmup_steps": 10}
    stage["students"]["proxy"]["optimizer"] = {"warmup_steps": 1}
    recipe = Recipe.model_validate(raw_recipe)
    scaled = with_steps(recipe, {"proxy": 30})
    assert scaled.stages["proxy"].steps == 30
    assert scaled.stages["proxy"].optimizer.warmup_steps == 3
    assert scaled.stages["proxy"].optimizer_of("proxy").warmup_steps == 1
    assert scaled.stages["proxy"].optimizer_of("proxy").lr == 1e-3  # still the stage's
    assert scaled.stages["proxy"].log_every == 3
    assert scaled.stages["student"] == recipe.stages["student"]
    assert with_steps(recipe, {}) == recipe


def test_a_run_is_given_its_steps_once(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "_measure", lambda recipe, name, *_: TIMES[name])
    monkeypatch.setattr(budget, "_SHARE", 1.0)
    lines: list[str] = []
    run = run_recipe(recipe.model_copy(update={"budget": "7s"}), tmp_path / "run")
    steps = {name: stage.steps for name, stage in run.recipe.stages.items()}
    assert steps == {"proxy": 1, "student": 3, "finetuned": 1}
    monkeypatch.setattr(budget, "_measure", lambda *_: lines.append("measured"))
    again = run_recipe(recipe.model_copy(update={"budget": "2h"}), tmp_path / "run")
    assert again.recipe == run.recipe == Run.open(tmp_path / "run").recipe
    assert run.recipe.budget is None
    assert not lines


@pytest.mark.parametrize("cached", [False, True])
def test_every_stage_is_measured_before_an_earlier_one_has_ended(
    raw_recipe: dict[str, Any], cached: bool
) -> None:
    if cached:
        raw_recipe["stages"]["student"] |= {"views": 2, "teacher_cache": "bf16"}
    recipe = Recipe.model_validate(raw_recipe)
    sources = open_sources(recipe.data.sources)
    here = Processes(torch.device("cpu"))
    found = budget._measure(recipe, "student", 0.1, here, sources)
    assert found.fixed_s > 0
    assert found.step_s > 0 or cached
