"""`openeupe.distill` and `openeupe.plan`, with encoders of a Python program as teachers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import openeupe
from openeupe.distillation import budget
from openeupe.distillation.recipe import Recipe, load_recipe
from openeupe.errors import InputError
from openeupe.progress import SilentProgress, Task

from ..tiny_recipe import write_recipe


class Mine(openeupe.Encoder):
    """One convolution, of another seed for each number."""

    def __init__(self, number: int = 0) -> None:
        super().__init__(
            name="mine",
            args={},
            cls_dim=6,
            patch_dim=6,
            patch_size=16,
            resolution=32,
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
        )
        torch.manual_seed(number)
        self.network = nn.Conv2d(3, 6, 16, stride=16)

    def tokens(self, pixels: Tensor) -> openeupe.Tokens:
        patches = self.network(pixels)
        return openeupe.Tokens(patches.mean((2, 3)), patches)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return write_recipe(tmp_path, 4, log_every=1, checkpoint_every=1)


def weights(run: Path) -> dict[str, Tensor]:
    return load_file(run / "student" / "student" / "model.safetensors")


class Interrupted(Exception):
    pass


class Interrupting(SilentProgress):
    """Stops the work at a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def task(self, title: str, total: int, done: int = 0) -> Any:
        outer, number = super().task(title, total, done), self.step

        class Stopping:
            def __enter__(self) -> Task:
                self.done = done
                outer.__enter__()
                return self

            def __exit__(self, *_: object) -> None:
                return None

            def advance(self, count: int = 1) -> None:
                self.done += count

            def report(self, _: object) -> None:
                if self.done == number:
                    raise Interrupted

        return Stopping()


def test_a_module_of_ones_own_is_a_teacher_that_is_not_touched(recipe: Path) -> None:
    teacher = Mine().train()
    run = openeupe.distill(recipe, run=recipe.parent / "run", teachers={"mine": teacher})
    info = run.student("student").info
    assert set(info.teachers) == {"vit", "mine"}
    assert info.teachers["mine"].encoder == "given:mine"
    assert info.teachers["mine"].resolution == [32]
    assert teacher.training
    assert teacher.network.weight.requires_grad
    assert openeupe.load(run.folder).name == "test_vit2"


def test_it_takes_the_place_of_a_teacher_in_each_stage(recipe: Path) -> None:
    overrides = {
        "stages.student.teachers.vit.cls_weight": 0.5,
        "stages.again": load_recipe(recipe).stages["student"].model_dump(mode="json"),
    }
    run = openeupe.distill(
        recipe, run=recipe.parent / "run", overrides=overrides, teachers={"vit": Mine()}
    )
    stages = run.recipe.stages
    assert [list(stage.teachers) for stage in stages.values()] == [["vit"], ["vit"]]
    assert {stage.teachers["vit"].encoder for stage in stages.values()} == {"given:vit"}
    assert stages["student"].teachers["vit"].cls_weight == 0.5


def test_a_run_with_it_resumes_and_knows_it_by_its_tensors(recipe: Path) -> None:
    whole, cut = recipe.parent / "whole", recipe.parent / "cut"
    openeupe.distill(recipe, run=whole, teachers={"mine": Mine()})
    with pytest.raises(Interrupted):
        openeupe.distill(recipe, run=cut, teachers={"mine": Mine()}, progress=Interrupting(3))
    with pytest.raises(InputError, match="mine is not the teacher that the stage began with"):
        openeupe.distill(recipe, run=cut, teachers={"mine": Mine(1)})
    with pytest.raises(InputError, match="given:mine is an encoder of a Python program"):
        openeupe.distill(cut / "recipe.yaml", run=cut)
    openeupe.distill(recipe, run=cut, teachers={"mine": Mine()})
    assert all(torch.equal(weights(cut)[k], v) for k, v in weights(whole).items())


def test_it_stays_the_teacher_of_a_run_within_a_budget(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "_measure", lambda *_: budget.StageTime(fixed_s=1.0, step_s=30.0))
    run = openeupe.distill(
        recipe, run=recipe.parent / "run", teachers={"mine": Mine()}, overrides={"budget": "1m"}
    )
    assert run.recipe.stages["student"].steps == 1
    assert run.student("student").info.teachers["mine"].encoder == "given:mine"


def test_names_of_teachers_are_checked(recipe: Path) -> None:
    with pytest.raises(InputError, match=r"teachers\.forward: forward is a reserved name"):
        openeupe.plan(recipe, teachers={"forward": Mine()})


def test_a_plan_counts_it(recipe: Path) -> None:
    plan = openeupe.plan(recipe, teachers={"mine": Mine()}, device="l4")
    (stage,) = plan.stages
    assert [t.name for t in stage.teachers] == ["vit", "mine"]
    assert stage.teachers[1].parameters == 6 * (3 * 16 * 16 + 1)
    assert plan.device_hours == stage.device_hours
    assert plan.to_json()[0]["stage"] == "student"
    assert "teacher mine" in str(plan.networks())
    assert "device-hours" in plan.table().markdown()


def test_recipes_come_from_files_mappings_and_objects(recipe: Path, tmp_path: Path) -> None:
    images = str(tmp_path / "images")
    typed = load_recipe(recipe)
    mapping = typed.model_dump(mode="json")
    forms: list[Any] = [recipe, str(recipe), mapping, typed, Recipe.model_validate(mapping)]
    for form in forms:
        for overrides in ({"stages.student.optimizer.lr": 0.5}, ["stages.student.optimizer.lr=.5"]):
            plan = openeupe.plan(form, data=[images], overrides=overrides)
            assert plan.stages[0].images == 16
    with pytest.raises(InputError, match=r"recipe tiny: stages\.student\.stepz: unknown key"):
        openeupe.plan(mapping, overrides={"stages.student.stepz": 1})
    with pytest.raises(InputError, match="/nowhere"):
        openeupe.distill(recipe, data="/nowhere", run=tmp_path / "run")
