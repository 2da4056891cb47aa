from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import openeupe
from openeupe.data import open_sources
from openeupe.distillation import budget
from openeupe.distillation.budget import StageTime, divide
from openeupe.distillation.recipe import Recipe
from openeupe.distillation.run import run_recipe
from openeupe.distillation.run_folder import Run
from openeupe.distillation.teacher_cache_choice import caching_pays, with_caches
from openeupe.distributed import Processes
from openeupe.encoders import load
from openeupe.progress import SILENT

IMAGES = 24


def one_stage(raw: dict[str, Any], **settings: Any) -> Recipe:
    """The stage `proxy` alone, its cache to be decided; batches of 8."""
    stage = raw["stages"]["proxy"] | {"batch_size": 8, "teacher_cache": "auto", **settings}
    teacher = stage["teachers"]["vit"] | {"args": {"depth": 24}}  # costs more than its student
    stage["teachers"] = {"vit": teacher}
    raw["stages"] = {"proxy": stage}
    return Recipe.model_validate(raw)


@pytest.mark.parametrize(
    ("steps", "views", "wanted"),
    [
        (3, None, 0),  # every image once: nothing to save
        (12, None, 1),  # four times
        (48, None, 4),  # sixteen times: a view is repeated four times
        (12, 2, 2),
        (12, 4, 0),  # more views than are drawn twice
    ],
)
def test_views_follow_from_how_often_an_image_is_drawn(
    raw_recipe: dict[str, Any], steps: int, views: int | None, wanted: int
) -> None:
    recipe = one_stage(raw_recipe, steps=steps, views=views)
    assert caching_pays(recipe, "proxy", IMAGES) == wanted


def test_a_cheap_teacher_is_not_cached(raw_recipe: dict[str, Any]) -> None:
    recipe = one_stage(raw_recipe, steps=400)
    assert caching_pays(recipe, "proxy", IMAGES) > 0
    raw_recipe["stages"]["proxy"]["students"]["proxy"]["encoder"] = "vit_small_patch16_224"
    costly = Recipe.model_validate(raw_recipe)
    assert caching_pays(costly, "proxy", IMAGES) == 0


def test_teachers_of_several_resolutions_are_not_cached(raw_recipe: dict[str, Any]) -> None:
    raw_recipe["stages"]["proxy"]["teachers"]["vit"]["resolution"] = [32, 48]
    decided = with_caches(one_stage(raw_recipe, steps=400), IMAGES)
    assert decided.stages["proxy"].teacher_cache == "none"


def test_the_choice_is_written_down_and_kept(raw_recipe: dict[str, Any], tmp_path: Path) -> None:
    recipe = one_stage(raw_recipe, steps=12)
    run = run_recipe(recipe, tmp_path / "run", progress=SILENT)
    saved = Run.open(tmp_path / "run").recipe.stages["proxy"]
    assert (saved.teacher_cache, saved.views) == ("bf16", 1)
    assert run.recipe.stages["proxy"] == saved
    (tmp_path / "run/proxy/finished.json").unlink()  # as if it had been killed
    more = recipe.stages["proxy"].model_copy(update={"checkpoint_every": 1})
    again = recipe.model_copy(update={"stages": {"proxy": more}})
    resumed = run_recipe(again, tmp_path / "run", progress=SILENT)
    assert resumed.recipe.stages["proxy"].views == 1
    given = raw_recipe["stages"]["proxy"] | {"teacher_cache": "bf16", "views": 1}
    explicit = recipe.model_validate(raw_recipe | {"stages": {"proxy": given}})
    other = run_recipe(explicit, tmp_path / "other", progress=SILENT)
    theirs = load(other.folder).state_dict()
    for name, tensor in load(run.folder).state_dict().items():
        assert torch.equal(tensor, theirs[name]), name


def test_a_budget_buys_more_steps_with_a_cache(
    raw_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    time = StageTime(fixed_s=1.0, step_s=1.0, teachers_s=0.6, view_batches=3)
    monkeypatch.setattr(budget, "_measure", lambda *_: time)
    monkeypatch.setattr(budget, "_SHARE", 1.0)
    recipe = one_stage(raw_recipe, steps=100).model_copy(update={"budget": "13s"})
    sources = open_sources(recipe.data.sources)
    here = Processes(torch.device("cpu"))
    bought = budget.within_budget(recipe, tmp_path / "run", here, sources, SILENT).stages["proxy"]
    # 1 s, three batches of 0.6 s for the cache, and steps of 0.4 s
    assert (bought.teacher_cache, bought.views) == ("bf16", 2)
    assert bought.steps == (13 - 1 - 2 * 3 * 0.6) // 0.4
    assert bought.steps > divide(recipe, {"proxy": time}, 13)["proxy"]
    short = recipe.model_copy(update={"budget": "3s"})
    least = budget.within_budget(short, tmp_path / "run", here, sources, SILENT).stages["proxy"]
    assert (least.teacher_cache, least.steps) == ("none", 1)


def test_the_plan_shows_what_would_be_decided(raw_recipe: dict[str, Any]) -> None:
    cached = openeupe.plan(one_stage(raw_recipe, steps=48)).stages[0]
    assert cached.cached_gib > 0
    assert openeupe.plan(one_stage(raw_recipe, steps=3)).stages[0].cached_gib == 0
