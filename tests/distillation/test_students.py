"""Several students behind one teacher pass: each as if alone, whatever becomes of the others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from timm.layers import DropBlock2d, DropPath, PatchDropout
from torch import nn

from openeupe.distillation.metrics import read_metrics
from openeupe.distillation.recipe import Recipe, dump_recipe, load_recipe
from openeupe.distillation.run import run_recipe
from openeupe.distillation.run_folder import Run
from openeupe.distillation.students import _drops
from openeupe.errors import InputError
from openeupe.progress import SILENT, Progress
from tests.lines import Lines
from tests.tiny_recipe import network

WILD = {"lr": 1e6, "weight_decay": 1e6, "clip_norm": None}  # weights grow by 1e12 a step


@pytest.fixture
def family(raw_recipe: dict[str, Any]) -> dict[str, Any]:
    """One stage with two students, of which `proxy` is also in the recipe it was made from."""
    stage = raw_recipe["stages"]["proxy"]
    stage["students"]["second"] = network("test_convnext", [32, 64])
    raw_recipe["stages"] = {"proxy": stage}
    return raw_recipe


def run(raw: dict[str, Any], folder: Path, progress: Progress = SILENT) -> Run:
    return run_recipe(Recipe.model_validate(raw), folder, progress=progress)


def weights(run: Run, student: str) -> dict[str, torch.Tensor]:
    folder = run.student_folder("proxy", student)
    return load_file(folder / "model.safetensors") | load_file(folder / "heads.safetensors")


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[k], other[k]) for k in one)


def test_each_member_is_trained_as_if_alone(family: dict[str, Any], tmp_path: Path) -> None:
    together = run(family, tmp_path / "both")
    family["stages"]["proxy"]["students"].pop("second")
    alone = run(family, tmp_path / "alone")
    assert_equal(weights(together, "proxy"), weights(alone, "proxy"))


def test_a_student_learns_from_the_teachers_it_names_as_if_the_others_were_not_there(
    family: dict[str, Any], tmp_path: Path
) -> None:
    stage = family["stages"]["proxy"]
    stage["students"]["second"] = {**stage["students"]["proxy"], "teachers": ["net"]}
    together = run(family, tmp_path / "both")
    student = together.student("proxy", "second")
    assert list(student.heads) == list(student.info.teachers) == ["net"]
    del (
        stage["teachers"]["vit"],
        stage["students"]["proxy"],
        stage["students"]["second"]["teachers"],
    )
    alone = run(family, tmp_path / "alone")
    assert_equal(weights(together, "second"), weights(alone, "second"))


@pytest.mark.parametrize(
    ("teachers", "told"),
    [(["nett"], "the stage has no teacher 'nett'"), (["net"], "teachers.vit: no student has")],
)
def test_teachers_that_are_not_there_or_not_heard_are_told(
    teachers: list[str], told: str, family: dict[str, Any]
) -> None:
    for student in family["stages"]["proxy"]["students"].values():
        student["teachers"] = teachers
    with pytest.raises(ValueError, match=told):
        Recipe.model_validate(family)


def test_a_student_has_optimizer_settings_of_its_own(
    family: dict[str, Any], tmp_path: Path
) -> None:
    family["stages"]["proxy"]["optimizer"] = {"lr": 1e-3, "weight_decay": 0.05}
    family["stages"]["proxy"]["students"]["second"]["optimizer"] = {"lr": 1e-12}
    recipe = Recipe.model_validate(family)
    stage = recipe.stages["proxy"]
    assert stage.optimizer_of("proxy").lr == 1e-3
    assert stage.optimizer_of("second").lr == 1e-12
    assert stage.optimizer_of("second").weight_decay == 0.05  # the stage's
    (tmp_path / "dumped.yaml").write_text(dump_recipe(recipe))
    assert load_recipe(tmp_path / "dumped.yaml") == recipe
    run_recipe(recipe, tmp_path / "run")
    last = read_metrics(tmp_path / "run" / "proxy" / "metrics.jsonl")[-1]
    assert last["lr/proxy"] == pytest.approx(last["lr/second"] * 1e9)


def test_a_wrong_optimizer_setting_of_a_student_is_named(
    family: dict[str, Any], tmp_path: Path
) -> None:
    family["stages"]["proxy"]["students"]["second"]["optimizer"] = {"lrate": 1}
    (tmp_path / "r.yaml").write_text(json.dumps(family))
    with pytest.raises(InputError, match=r"students\.second\.optimizer\.lrate: unknown key"):
        load_recipe(tmp_path / "r.yaml")


def test_a_student_that_diverges_is_dropped_and_the_others_go_on(
    family: dict[str, Any], tmp_path: Path
) -> None:
    family["stages"]["proxy"]["students"]["second"]["optimizer"] = WILD
    family["stages"]["next"] = family["stages"]["proxy"] | {
        "students": {
            name: {"encoder": f"stage:proxy/{name}", "resolution": 32}
            for name in ("proxy", "second")
        }
    }
    told = Lines()
    done = run(family, tmp_path / "run", told)
    step = done.dropped("proxy")["second"]
    assert 2 <= step <= 4  # the first update is the wild one
    assert f"second was not finite at step {step}: dropped" in told.text
    assert "second cannot continue" in told.text
    assert done.dropped("next") == {"second": 0}
    last = read_metrics(tmp_path / "run" / "proxy" / "metrics.jsonl")[-1]
    assert "loss/proxy/vit/cls" in last
    assert not any("second" in name for name in last)
    with pytest.raises(InputError, match=rf"second diverged at step {step} .*lower its optimizer"):
        done.student("proxy", "second")
    family["stages"].pop("next")
    family["stages"]["proxy"]["students"].pop("second")
    assert_equal(weights(done, "proxy"), weights(run(family, tmp_path / "alone"), "proxy"))


@pytest.mark.parametrize(
    ("layer", "draws"),
    [
        (PatchDropout(0.5), True),
        (DropBlock2d(0.1), True),
        (DropPath(0.1), True),
        (nn.Dropout(0.1), True),
        (nn.Dropout(0.0), False),
        (PatchDropout(0.0), False),
        (DropBlock2d(0.0), False),
    ],
)
def test_layers_that_draw_for_each_image_are_known(layer: nn.Module, draws: bool) -> None:
    """Processes and parts of a batch would else drop the same of their images."""
    assert _drops(layer) == draws


def test_a_dropped_student_stays_dropped_after_a_resume(
    family: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from openeupe.distillation.trainer import Trainer

    family["stages"]["proxy"]["students"]["second"]["optimizer"] = WILD
    whole = run(family, tmp_path / "whole")
    real = Trainer.step

    def cut(self: Trainer, images: torch.Tensor, step: int, kept: Any) -> Any:
        if step == 5:
            raise KeyboardInterrupt
        return real(self, images, step, kept)

    monkeypatch.setattr(Trainer, "step", cut)
    with pytest.raises(KeyboardInterrupt):
        run(family, tmp_path / "cut")
    monkeypatch.setattr(Trainer, "step", real)
    resumed = run(family, tmp_path / "cut")
    assert resumed.dropped("proxy") == whole.dropped("proxy") != {}
    assert_equal(weights(resumed, "proxy"), weights(whole, "proxy"))


def test_when_none_is_left_the_stage_stops(family: dict[str, Any], tmp_path: Path) -> None:
    family["stages"]["proxy"]["optimizer"] = WILD
    with pytest.raises(InputError, match=r"proxy: the loss or the .* lower optimizer\.lr"):
        run(family, tmp_path / "run")
