"""Whole runs of a tiny recipe: what they leave, what they repeat, what they refuse."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import openeupe
from openeupe.distillation.check import check_recipe
from openeupe.distillation.metrics import read_metrics
from openeupe.distillation.recipe import Recipe
from openeupe.distillation.run import run_recipe
from openeupe.distillation.run_folder import Run
from openeupe.distillation.students import Learner
from openeupe.encoders import create, save
from openeupe.errors import InputError
from tests.lines import Lines
from tests.tiny_recipe import network

from .conftest import cut_off, three_stages


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.safetensors")}


@pytest.fixture
def recipe(raw_recipe: dict[str, Any]) -> Recipe:
    return Recipe.model_validate(raw_recipe)


@pytest.fixture(scope="module")
def run(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run of the recipe, which tests leave as it is."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    return run_recipe(Recipe.model_validate(three_stages(images)), folder)


def test_a_run_leaves_loadable_students(run: Run) -> None:
    folder = run.folder
    # Every way of naming the result gives the same network.
    images = torch.rand(1, 3, 64, 64)
    final = openeupe.load(folder)
    for source in ("finetuned", "finetuned/student"):
        same = openeupe.load(folder / source)
        assert torch.equal(same(images).patches, final(images).patches)
    assert not final.training
    # The heads and statistics lie beside it, in the proxy's widths.
    student = run.student("finetuned")
    proxy = openeupe.load(folder / "proxy")
    predicted = student.predict(final(images), "proxy")
    assert predicted.cls.shape == (1, proxy.cls_dim)
    assert predicted.patches.shape[1] == proxy.patch_dim
    assert student.info.teachers["proxy"].encoder == "stage:proxy"
    # Metrics of every stage, teacher and token kind; checkpoints are gone.
    for stage, teachers in (("proxy", ["vit", "net"]), ("student", ["proxy"])):
        records = read_metrics(folder / stage / "metrics.jsonl")
        assert [r["step"] for r in records] == [3, 6]
        assert all(f"loss/{t}/{k}" in records[0] for t in teachers for k in ("cls", "patches"))
        assert list((folder / stage / "tensorboard").iterdir())
        assert not (folder / stage / "checkpoints").exists()


def test_training_moves_the_student_towards_the_teacher(
    raw_recipe: dict[str, Any], tmp_path: Path
) -> None:
    stage = raw_recipe["stages"]["proxy"]
    stage |= {"steps": 40, "log_every": 10, "optimizer": {"lr": 3e-3}}
    raw_recipe["stages"] = {"proxy": stage}
    run_recipe(Recipe.model_validate(raw_recipe), tmp_path / "run")
    records = read_metrics(tmp_path / "run" / "proxy" / "metrics.jsonl")
    for name in (f"loss/{t}/{k}" for t in ("vit", "net") for k in ("cls", "patches")):
        assert records[-1][name] < 0.9 * records[0][name], name


def test_what_is_finished_is_not_done_again(run: Run, recipe: Recipe) -> None:
    before = files(run.folder)
    stamps = {p: p.stat().st_mtime_ns for p in run.folder.rglob("*.safetensors")}
    again = Lines()
    run_recipe(recipe, run.folder, progress=again)
    assert files(run.folder) == before
    assert {p: p.stat().st_mtime_ns for p in stamps} == stamps
    assert again.text.count("finished before") == 3


def test_two_runs_of_one_seed_are_identical_and_of_two_seeds_are_not(
    run: Run, recipe: Recipe, tmp_path: Path
) -> None:
    for name, seed, workers in (("same", 0, 1), ("other", 1, 0)):
        data = recipe.data.model_copy(update={"workers": workers})
        one = recipe.model_copy(update={"seed": seed, "data": data})
        run_recipe(one, tmp_path / name)
    assert files(run.folder) == files(tmp_path / "same")
    assert files(run.folder) != files(tmp_path / "other")


def test_a_run_leaves_the_global_random_state_as_it_was(
    raw_recipe: dict[str, Any], tmp_path: Path
) -> None:
    raw_recipe["stages"] = {"proxy": raw_recipe["stages"]["proxy"]}
    before = torch.get_rng_state()
    run_recipe(Recipe.model_validate(raw_recipe), tmp_path / "run")
    assert torch.equal(torch.get_rng_state(), before)


def test_stage_3_goes_on_with_heads_and_statistics_of_stage_2(
    raw_recipe: dict[str, Any], tmp_path: Path
) -> None:
    raw_recipe["stages"]["finetuned"]["optimizer"] = {"lr": 1e-12}
    run = run_recipe(Recipe.model_validate(raw_recipe), tmp_path / "run")
    before, after = run.student("student"), run.student("finetuned")
    weight = "cls.0.weight"
    assert torch.allclose(
        before.heads["proxy"].state_dict()[weight], after.heads["proxy"].state_dict()[weight]
    )
    assert torch.equal(before.statistics["proxy"].cls_mean, after.statistics["proxy"].cls_mean)


def test_heads_start_anew_when_told(raw_recipe: dict[str, Any], tmp_path: Path) -> None:
    finetuned = raw_recipe["stages"]["finetuned"]
    finetuned["optimizer"] = {"lr": 1e-12}
    finetuned["students"]["student"]["keep_heads"] = False
    run = run_recipe(Recipe.model_validate(raw_recipe), tmp_path / "run")
    before, after = run.student("student"), run.student("finetuned")
    weight = "cls.0.weight"
    assert not torch.allclose(
        before.heads["proxy"].state_dict()[weight], after.heads["proxy"].state_dict()[weight]
    )
    # Measured at three sides now, not at one.
    assert not torch.equal(before.statistics["proxy"].cls_mean, after.statistics["proxy"].cls_mean)


def test_heads_can_learn_first(
    raw_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = raw_recipe["stages"]["proxy"]
    raw_recipe["stages"] = {"proxy": stage}

    def weights(folder: str, freeze_backbone_steps: int) -> dict[str, torch.Tensor]:
        stage["optimizer"] = {"lr": 1e-3, "freeze_backbone_steps": freeze_backbone_steps}
        run = run_recipe(Recipe.model_validate(raw_recipe), tmp_path / folder)
        student = run.student("proxy")
        both = torch.nn.ModuleDict({"encoder": student.encoder, "heads": student.heads["vit"]})
        return dict(both.named_parameters())

    def moved(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> set[str]:
        return {key.split(".")[0] for key in one if not torch.equal(one[key], two[key])}

    never, least = weights("never", 6), weights("least", 5)
    assert "encoder" in moved(never, least)
    stage["steps"] = 1  # the same beginning: only heads can differ
    assert moved(never, weights("begun", 1)) == {"heads"}
    # Killed after the checkpoint of step 2, while the student still stands still: the same end.
    stage["steps"] = 6
    with cut_off(monkeypatch):
        weights("cut", 5)
    assert moved(weights("cut", 5), least) == set()


def test_several_students_in_one_pass_equal_each_alone(
    raw_recipe: dict[str, Any], tmp_path: Path
) -> None:
    stage = raw_recipe["stages"]["proxy"]
    first = network("test_vit2", depth=2, drop_path_rate=0.3)
    second = network("test_convnext", drop_path_rate=0.3)
    raw_recipe["stages"] = {"proxy": stage | {"students": {"proxy": first, "second": second}}}
    both = run_recipe(Recipe.model_validate(raw_recipe), tmp_path / "both")
    raw_recipe["stages"] = {"proxy": stage | {"students": {"second": second}}}
    alone = run_recipe(Recipe.model_validate(raw_recipe), tmp_path / "alone")
    assert files(both.folder / "proxy" / "second") == files(alone.folder / "proxy" / "second")
    with pytest.raises(InputError, match="proxy, second"):
        openeupe.load(tmp_path / "both")


def test_what_has_begun_must_stay_as_it_was(raw_recipe: dict[str, Any], tmp_path: Path) -> None:
    stages = raw_recipe["stages"]
    raw_recipe["stages"] = {"proxy": stages["proxy"]}
    run_recipe(Recipe.model_validate(raw_recipe), tmp_path / "run")
    stages["proxy"]["steps"] = 99
    with pytest.raises(InputError, match=r"stages\.proxy\.steps: 6 then, 99 now"):
        Run.start(Recipe.model_validate(raw_recipe), tmp_path / "run")
    # How often is logged changes no result, and stages may be added behind.
    stages["proxy"] |= {"steps": 6, "log_every": 1}
    raw_recipe["stages"] = stages
    before = files(tmp_path / "run")
    run_recipe(Recipe.model_validate(raw_recipe), tmp_path / "run")
    after = files(tmp_path / "run")
    assert {k: after[k] for k in before} == before
    assert "finetuned/student/model.safetensors" in after


def test_a_recipe_that_failed_before_it_began_may_be_mended(
    raw_recipe: dict[str, Any], tmp_path: Path
) -> None:
    raw_recipe["stages"] = {"proxy": raw_recipe["stages"]["proxy"]}
    teacher = raw_recipe["stages"]["proxy"]["teachers"]["vit"]
    teacher["pretrained"] = True  # of a timm name that has no published weights
    teacher["encoder"] = "vit_tiny_patch16_224.none"
    with pytest.raises(InputError, match=r"teachers\.vit"):
        run_recipe(Recipe.model_validate(raw_recipe), tmp_path / "run")
    teacher |= {"pretrained": False, "encoder": "test_vit"}
    run_recipe(Recipe.model_validate(raw_recipe), tmp_path / "run")


def test_a_saved_encoder_may_teach_and_be_trained_on(
    raw_recipe: dict[str, Any], tmp_path: Path
) -> None:
    save(create("test_resnet"), tmp_path / "teacher")
    save(create("test_vit2"), tmp_path / "start")
    stage = raw_recipe["stages"]["proxy"]
    stage["teachers"]["net"] = {"encoder": str(tmp_path / "teacher"), "resolution": 64}
    stage["students"]["proxy"] = {"encoder": str(tmp_path / "start"), "resolution": 32}
    stage["optimizer"] = {"lr": 1e-12}
    raw_recipe["stages"] = {"proxy": stage}
    recipe = Recipe.model_validate(raw_recipe)
    run = run_recipe(recipe, tmp_path / "run")
    images = torch.rand(1, 3, 32, 32)
    expected = openeupe.load(tmp_path / "start")(images).cls
    torch.testing.assert_close(run.student("proxy").encoder.eval()(images).cls, expected)
    shutil.rmtree(tmp_path / "teacher")
    with pytest.raises(InputError, match=r"teachers\.net: there is no encoder folder or file"):
        check_recipe(recipe)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("data.sources", [{"path": "/no/such"}], r"data\.sources\.0: .*/no/such"),
        ("stages.proxy.teachers.vit.encoder", "vit_nonesuch", r"teachers\.vit: no encoder"),
        ("stages.proxy.students.proxy.resolution", 40, r"students\.proxy: resolution 40 does not"),
        ("stages.finetuned.students.student.resolution", [64, 80], r"resolution 80 .* 64 or 96"),
        ("stages.proxy.teachers.vit.args", {"depht": 1}, r"teachers\.vit: .*depht"),
    ],
)
def test_mistakes_are_found_before_work_starts(
    raw_recipe: dict[str, Any], path: str, value: Any, message: str
) -> None:
    *parents, last = path.split(".")
    raw: Any = raw_recipe
    for key in parents:
        raw = raw[key]
    raw[last] = value
    with pytest.raises(InputError, match=message) as error:
        check_recipe(Recipe.model_validate(raw_recipe))
    assert "\n" not in str(error.value)


def test_weights_of_a_later_stage_that_cannot_be_had_stop_the_run_at_once(
    raw_recipe: dict[str, Any], tmp_path: Path
) -> None:
    raw_recipe["stages"]["student"]["teachers"]["proxy"] = {
        "encoder": "eupe_proxy", "args": {"width": 64, "depth": 1, "heads": 4}, "resolution": 32,
    }  # fmt: skip
    with pytest.raises(InputError, match=r"stages\.student\.teachers\.proxy: .*no proxy has been"):
        run_recipe(Recipe.model_validate(raw_recipe), tmp_path / "run")
    assert not (tmp_path / "run" / "proxy").exists()


def test_a_loss_that_is_not_finite_stops_the_stage(
    raw_recipe: dict[str, Any], tmp_path: Path
) -> None:
    raw_recipe["stages"] = {"proxy": raw_recipe["stages"]["proxy"]}
    raw_recipe["stages"]["proxy"]["optimizer"] = {
        "lr": 1e6,
        "weight_decay": 1e6,
        "clip_norm": None,
    }
    with pytest.raises(InputError, match=r"proxy: .* became (nan|inf).*lower optimizer\.lr"):
        run_recipe(Recipe.model_validate(raw_recipe), tmp_path / "run")


@pytest.mark.parametrize("others", [False, True])
def test_weights_that_only_the_last_update_made_infinite_are_not_saved(
    raw_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, others: bool
) -> None:
    stage = raw_recipe["stages"]["proxy"]
    stage["optimizer"] = {"lr": 1e-3, "clip_norm": None}
    if others:
        stage["students"]["second"] = {"encoder": "test_resnet", "resolution": 64}
    raw_recipe["stages"] = {"proxy": stage}
    update = Learner.update

    def overflowing(self: Learner, step: int) -> dict[str, torch.Tensor]:
        values = update(self, step)
        if step == 5 and self.name == "proxy":
            with torch.no_grad():
                self.parameters[0].view(-1)[0] = float("inf")
        return values

    monkeypatch.setattr(Learner, "update", overflowing)
    recipe = Recipe.model_validate(raw_recipe)
    if others:
        run = run_recipe(recipe, tmp_path / "run")
        assert run.dropped("proxy") == {"proxy": 6}
        assert run.student("proxy", "second")
    else:
        with pytest.raises(InputError, match=r"weights of proxy became .* at step 6: lower optim"):
            run_recipe(recipe, tmp_path / "run")
    assert not (tmp_path / "run" / "proxy" / "proxy").exists()


def test_finished_json_tells_the_story(run: Run) -> None:
    told = json.loads((run.folder / "proxy" / "finished.json").read_text())
    assert told["images"] == 24
    assert told["teachers"]["net"]["cls_dim"] == create("test_resnet").cls_dim
    assert told["broken_images"] == []
    assert {"openeupe", "torch", "timm", "python"} <= set(told["versions"])
