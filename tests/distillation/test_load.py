"""Networks that bring weights of their own: their arguments are honoured or refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.layers import DropPath

from openeupe.distillation.check import check_recipe, meta_encoder
from openeupe.distillation.load import carry_over, load_networks
from openeupe.distillation.recipe import Recipe
from openeupe.distillation.run import run_recipe
from openeupe.distillation.run_folder import Run
from openeupe.distillation.saved import StudentInfo
from openeupe.distillation.stage import Stage
from openeupe.distillation.student import save_student
from openeupe.encoders import Encoder, create, save
from openeupe.errors import InputError
from tests.tiny_recipe import network

from .finishing import write_ending


def dropped(encoder: Encoder) -> float:
    return max((m.drop_prob or 0 for m in encoder.modules() if isinstance(m, DropPath)), default=0)


@pytest.fixture
def run(raw_recipe: dict[str, Any], tmp_path: Path) -> Run:
    """A run whose stage `student` has ended, with a student that nobody trained."""
    finetuned = raw_recipe["stages"]["finetuned"]
    finetuned["teachers"] = raw_recipe["stages"]["student"]["teachers"] = {
        "vit": network("test_vit")
    }
    raw_recipe["stages"]["student"]["students"]["student"] = network("test_vit2", 64, depth=2)
    finetuned["students"]["student"]["args"] = {"drop_path_rate": 0.25}
    run = Run(tmp_path, Recipe.model_validate(raw_recipe))
    student, teacher = create("test_vit2", depth=2), create("test_vit", depth=1)
    config = run.recipe.stages["student"]
    stage = Stage("student", config, {"vit": teacher}, {"student": student}, 0)
    widths = {"cls_dim": teacher.cls_dim, "patch_dim": teacher.patch_dim}
    info = {"run": "tiny", "stage": "student", "seed": 0, "steps": 1, "images": 4,
            "head_hidden": 16, "teachers": {"vit": {"encoder": "test_vit", **widths}}}  # fmt: skip
    folder = tmp_path / "student" / "student"
    folder.parent.mkdir()
    heads, made = stage.heads["student"], StudentInfo.model_validate(info)
    save_student(folder, student, heads, stage.statistics, made)  # type: ignore[arg-type]
    write_ending(tmp_path / "student")
    return run


def test_stage_3_is_regularized_as_its_args_say(run: Run) -> None:
    config = run.recipe.stages["finetuned"]
    made = load_networks(run, "finetuned", "students", config.students)["student"]
    before = run.student("student").encoder
    assert dropped(before) == 0
    assert dropped(made) == 0.25
    assert made.args["drop_path_rate"] == 0.25
    images = torch.rand(1, 3, 64, 64)
    assert torch.equal(made(images).patches, before(images).patches)


def test_heads_do_not_go_on_towards_another_random_teacher(run: Run) -> None:
    config = run.recipe.stages["finetuned"]
    teachers, students = (
        load_networks(run, "finetuned", kind, getattr(config, kind))
        for kind in ("teachers", "students")
    )
    earlier = load_networks(run, "student", "teachers", run.recipe.stages["student"].teachers)
    weights = [next(iter(t["vit"].parameters())) for t in (earlier, teachers)]
    assert not torch.equal(*weights)
    assert not carry_over(run, Stage("finetuned", config, teachers, students, 0))


def test_heads_do_not_go_on_towards_a_teacher_that_was_replaced(
    raw_recipe: dict[str, Any], tmp_path: Path
) -> None:
    """By its path it is the same one."""
    del raw_recipe["stages"]["proxy"]
    teacher = {"teacher": {"encoder": str(tmp_path / "teacher"), "resolution": 32}}
    for stage in raw_recipe["stages"].values():
        stage |= {"teachers": teacher, "steps": 1}
    first = {**raw_recipe, "stages": {"student": raw_recipe["stages"]["student"]}}
    save(create("test_vit"), tmp_path / "teacher")
    run_recipe(Recipe.model_validate(first), tmp_path / "run")
    kept = (tmp_path / "teacher").rename(tmp_path / "kept")
    save(create("test_vit"), tmp_path / "teacher")
    both = Recipe.model_validate(raw_recipe)
    with pytest.raises(InputError, match=r"students\.student: .* of another teacher than the one"):
        run_recipe(both, tmp_path / "run")
    shutil.rmtree(tmp_path / "teacher")
    kept.rename(tmp_path / "teacher")
    run_recipe(both, tmp_path / "run")


def test_a_stored_teacher_gives_the_patches_that_its_args_name(
    raw_recipe: dict[str, Any], tmp_path: Path
) -> None:
    save(create("efficientnet_lite0"), tmp_path / "lite0")
    teacher = {"encoder": str(tmp_path / "lite0"), "resolution": 64, "args": {"patches": "8+16+32"}}
    raw_recipe["stages"] = {"proxy": raw_recipe["stages"]["proxy"]}
    raw_recipe["stages"]["proxy"]["teachers"] = {"net": teacher}
    recipe = Recipe.model_validate(raw_recipe)
    check_recipe(recipe)
    config = recipe.stages["proxy"]
    made = load_networks(Run(tmp_path, recipe), "proxy", "teachers", config.teachers)["net"]
    planned = meta_encoder(recipe, config.teachers["net"], config.teachers["net"].args)
    assert made(torch.rand(1, 3, 64, 64)).patches.shape[1] == 472 == made.patch_dim
    assert made.constants == create("efficientnet_lite0").constants  # exact, not rounded to float32
    assert planned.patch_dim == 472


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"args": {"depth": 1}}, r"students\.student: args: the weights of stage:student do not"),
        ({"args": {"nonsense": 1}}, r"students\.student: .*nonsense"),
        ({"pretrained": False}, r"pretrained: stage:student brings its own weights"),
    ],
)
def test_settings_that_cannot_be_honoured_are_refused_before_work_starts(
    run: Run, raw_recipe: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    raw_recipe["stages"]["finetuned"]["students"]["student"] |= change
    with pytest.raises(InputError, match=message) as error:
        check_recipe(Recipe.model_validate(raw_recipe))
    assert "\n" not in str(error.value)


def test_args_that_change_token_widths_need_new_heads(raw_recipe: dict[str, Any]) -> None:
    stages = raw_recipe["stages"]
    student = {"encoder": "stage:proxy", "resolution": 64, "args": {"patches": "8+16+32"}}
    stages["proxy"]["students"] = {"net": {"encoder": "efficientnet_lite0", "resolution": 64}}
    raw_recipe["stages"] = {"proxy": stages["proxy"]}
    raw_recipe["stages"]["wider"] = stages["proxy"] | {"students": {"net": student}}
    with pytest.raises(InputError, match=r"students\.net: .*heads no longer fit: set keep_heads"):
        check_recipe(Recipe.model_validate(raw_recipe))
    student["keep_heads"] = False
    check_recipe(Recipe.model_validate(raw_recipe))


def test_a_seed_of_views_without_views_is_refused(raw_recipe: dict[str, Any]) -> None:
    raw_recipe["data"]["views_seed"] = 1
    with pytest.raises(InputError, match="views_seed has no effect without views"):
        check_recipe(Recipe.model_validate(raw_recipe))
    raw_recipe["stages"]["student"]["views"] = 2
    check_recipe(Recipe.model_validate(raw_recipe))
