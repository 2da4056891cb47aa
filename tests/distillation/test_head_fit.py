from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from openeupe.distillation.head_fit import Regression
from openeupe.distillation.metrics import read_metrics
from openeupe.distillation.recipe import Recipe
from openeupe.distillation.run import run_recipe
from openeupe.distillation.stage import Stage, Views
from openeupe.encoders import Tokens

from .conftest import cut_off


def draw(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_a_linear_relation_is_found() -> None:
    weights = draw(5, 8, seed=0)
    regression = Regression(8, 5, torch.device("cpu"))
    for part in (0, 0, 1):
        inputs = draw(200, 8, seed=1 + part)
        regression.add(inputs, inputs @ weights.T, part)
    torch.testing.assert_close(regression.solve(), weights, rtol=1e-3, atol=1e-3)


def test_the_shrinkage_is_chosen_by_rows_that_were_not_fitted() -> None:
    """Few rows of noise: the least shrinkage fits them best and predicts worst."""
    regression = Regression(30, 4, torch.device("cpu"))
    regression.add(draw(32, 30, seed=0), draw(32, 4, seed=1), 0)
    regression.add(draw(300, 30, seed=2), draw(300, 4, seed=3), 1)
    free = regression._weights(0, 1e-4)
    assert regression.solve().square().sum() < 0.25 * free.square().sum()


def test_processes_add_their_sums() -> None:
    whole, half = (Regression(6, 2, torch.device("cpu")) for _ in range(2))
    parts = [(draw(50, 6, seed=s), draw(50, 2, seed=s + 9)) for s in range(4)]
    for i, (x, y) in enumerate(parts):
        whole.add(x, y, i % 2)
    other = Regression(6, 2, torch.device("cpu"))
    for i, (x, y) in enumerate(parts):
        (half if i < 2 else other).add(x, y, i % 2)
    sums = {id(half.gram): other.gram, id(half.cross): other.cross, id(half.rows): other.rows}
    half.gathered(lambda t: [t, sums[id(t)]])
    torch.testing.assert_close(half.solve(), whole.solve())


def first_loss(recipe: Recipe, folder: Path) -> float:
    run_recipe(recipe, folder)
    return float(read_metrics(folder / "proxy" / "metrics.jsonl")[0]["total/proxy"])


def test_fitted_heads_begin_with_a_lower_loss_and_resume(
    raw_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = raw_recipe["stages"]["proxy"] | {"log_every": 1, "steps": 4, "batch_size": 8}
    raw_recipe["stages"] = {"proxy": stage}
    random = first_loss(Recipe.model_validate(raw_recipe), tmp_path / "random")
    stage["head_init"] = "ridge"
    recipe = Recipe.model_validate(raw_recipe)
    fitted = first_loss(recipe, tmp_path / "fitted")
    assert fitted < 0.9 * random
    with cut_off(monkeypatch):
        run_recipe(recipe, tmp_path / "cut")
    run_recipe(recipe, tmp_path / "cut")
    whole, cut = (
        read_metrics(tmp_path / name / "proxy" / "metrics.jsonl") for name in ("fitted", "cut")
    )
    assert [r["total/proxy"] for r in whole] == [r["total/proxy"] for r in cut]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_what_only_measures_takes_the_parts_that_fit_the_memory(
    raw_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accumulate: int
) -> None:
    seen: list[int] = []
    tokens = Stage.teacher_tokens

    def watched(self: Stage, teacher: str, views: Views, step: int) -> Tokens:
        seen.append(len(views.at(32)))
        return tokens(self, teacher, views, step)

    monkeypatch.setattr(Stage, "teacher_tokens", watched)
    stage = raw_recipe["stages"]["proxy"] | {"head_init": "ridge", "batch_size": 8, "steps": 2}
    raw_recipe["stages"] = {"proxy": stage | {"accumulate": accumulate}}
    run_recipe(Recipe.model_validate(raw_recipe), tmp_path / "run")
    assert set(seen) == {8 // accumulate}
