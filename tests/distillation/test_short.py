from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

import openeupe
from openeupe.cli.app import app
from openeupe.distillation.run_folder import Run
from openeupe.errors import InputError
from tests.docs.pages import commands, typed

LITTLE = ["stages.student.head_hidden=8", "stages.student.batch_size=4", "budget=null",
          "stages.student.steps=2", "stages.student.statistics.iterations=1"]  # fmt: skip


def test_teachers_and_student_fill_the_recipe_in() -> None:
    recipe = openeupe.short_recipe(
        ["dinov2_s_focus", "untrained:test_vit", "untrained:test_vit"], "resnet10t", resolution=130
    )
    stage = recipe.stages["student"]
    seen = {key: (one.encoder, one.resolution) for key, one in stage.teachers.items()}
    assert seen == {
        "dinov2_s_focus": ("dinov2_s_focus", (126,)),  # whole patches of 14
        "untrained_test_vit": ("untrained:test_vit", (128,)),
        "untrained_test_vit_2": ("untrained:test_vit", (128,)),
    }
    assert stage.students["student"].resolution == (128,)
    assert recipe.budget == "10m"


def test_one_teacher_and_changes() -> None:
    place = "stages.student.students.student.resolution"
    recipe = openeupe.short_recipe(
        "efficientnet_lite0", "resnet10t", overrides=[f"{place}=96", "budget=30m"]
    )
    assert recipe.stages["student"].students["student"].resolution == (96,)
    assert recipe.budget == "30m"


def test_the_command_needs_no_recipe(images: Path, tmp_path: Path) -> None:
    words = ["distill", "--teacher", "raw_pixels", "--student", "test_resnet", "--resolution", "64"]
    words += ["--data", str(images), "--run", str(tmp_path / "run"), *LITTLE]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    stage = Run.open(tmp_path / "run").recipe.stages["student"]
    assert list(stage.teachers) == ["raw_pixels"]
    assert stage.steps == 2
    assert openeupe.load(tmp_path / "run").name == "test_resnet"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name a recipe, or give --teacher and --student"),
        (["--teacher", "raw_pixels"], "belong together"),
        (["direct", "--teacher", "raw_pixels", "--student", "resnet10t"], "either the recipe"),
    ],
)
def test_what_does_not_belong_together(words: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        CliRunner().invoke(app, ["distill", *words], catch_exceptions=False)


def test_no_teacher_is_refused() -> None:
    with pytest.raises(InputError, match="at least one"):
        openeupe.short_recipe([], "resnet10t")


@pytest.mark.parametrize("line", commands("distill --teacher"))
def test_the_documented_line_runs(
    line: str, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FOLDER").symlink_to(images)
    typed(line, "--resolution", "64", *LITTLE, without=("--budget", "10m"))
    assert openeupe.load("runs/short").name == "mobilenetv3_small_100"
