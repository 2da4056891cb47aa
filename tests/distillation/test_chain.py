from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

import openeupe
from openeupe.distillation.adapter_heads import TeacherHeads
from openeupe.distillation.chain import chains, load_with_chains
from openeupe.distillation.recipe import Recipe, dump_recipe
from openeupe.distillation.saved import StudentInfo
from openeupe.distillation.standardize import Standardizer
from openeupe.distillation.student import DistilledStudent, load_student, save_student
from openeupe.encoders import Encoder, create
from openeupe.errors import InputError

from .finishing import write_ending


def finish(folder: Path, student: Encoder, teachers: dict[str, tuple[str, Encoder]]) -> None:
    """A student as a stage leaves it, with random heads and statistics that are not trivial."""
    heads = {name: TeacherHeads(student, teacher, 16) for name, (_, teacher) in teachers.items()}
    statistics = {name: Standardizer(teacher) for name, (_, teacher) in teachers.items()}
    for part in statistics.values():
        for key, value in part.state_dict().items():
            value.copy_(torch.randn_like(value) if "mean" in key else torch.rand_like(value) + 0.5)
    told = {
        name: {"encoder": encoder, "cls_dim": teacher.cls_dim, "patch_dim": teacher.patch_dim}
        for name, (encoder, teacher) in teachers.items()
    }
    info = {"run": "tiny", "stage": folder.parent.name, "seed": 0, "steps": 1, "images": 4,
            "head_hidden": 16, "teachers": told}  # fmt: skip
    save_student(folder, student, heads, statistics, StudentInfo.model_validate(info))
    write_ending(folder.parent)


@pytest.fixture
def run(raw_recipe: dict[str, Any], tmp_path: Path) -> Path:
    """Experts -> proxy -> student -> finetuned, where the finetuned also sees one expert itself."""
    torch.manual_seed(0)
    stages = raw_recipe["stages"]
    for teacher in stages["proxy"]["teachers"].values():
        del teacher["pretrained"]
    stages["proxy"]["teachers"]["unknown"] = {
        "encoder": "test_mambaout",
        "pretrained": False,
        "resolution": 64,
    }
    stages["finetuned"]["teachers"]["net"] = {"encoder": "test_resnet", "resolution": 64}
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "recipe.yaml").write_text(dump_recipe(Recipe.model_validate(raw_recipe)))
    vit, net = create("test_vit"), create("test_resnet")
    proxy, student = create("test_vit2"), create("test_efficientnet")
    finish(
        folder / "proxy" / "proxy",
        proxy,
        {
            "vit": ("test_vit", vit),
            "net": ("test_resnet", net),
            "unknown": ("test_mambaout", create("test_mambaout")),
        },
    )
    finish(folder / "student" / "student", student, {"proxy": ("stage:proxy", proxy)})
    finish(
        folder / "finetuned" / "student",
        student,
        {"proxy": ("stage:proxy/proxy", proxy), "net": ("test_resnet", net)},
    )
    return folder


def step(student: DistilledStudent, teacher: str, cls: torch.Tensor) -> torch.Tensor:
    """One step by hand: Linear, LayerNorm, GELU, Linear, and the teacher's own scale again."""
    weights = student.heads[teacher].cls.state_dict()
    hidden = F.layer_norm(
        cls @ weights["0.weight"].T, (16,), weights["1.weight"], weights["1.bias"]
    )
    standard = F.gelu(hidden) @ weights["3.weight"].T
    statistics = student.statistics[teacher]
    return standard * statistics.cls_std + statistics.cls_mean


def test_each_step_takes_the_scale_that_the_last_one_undid(run: Path) -> None:
    proxy, student = load_student(run / "proxy/proxy"), load_student(run / "student/student")
    found = chains(run / "student/student")
    assert set(found) == {"test_vit", "test_resnet"}  # the third expert was not pretrained
    cls = torch.randn(5, student.encoder.cls_dim)
    in_between = step(student, "proxy", cls)
    for expert, teacher in (("test_vit", "vit"), ("test_resnet", "net")):
        torch.testing.assert_close(found[expert](cls), step(proxy, teacher, in_between))
    assert not found["test_vit"](cls).requires_grad


def test_the_head_of_a_chain_is_what_training_predicts_with(run: Path) -> None:
    proxy = load_student(run / "proxy/proxy")
    tokens = proxy.encoder(torch.rand(2, 3, 32, 32))
    expected = proxy.statistics["vit"].inverse(proxy.predict(tokens, "vit")).cls
    torch.testing.assert_close(chains(run / "proxy/proxy")["test_vit"](tokens.cls), expected)


def test_the_identity_of_a_chain_is_of_all_heads_and_statistics(run: Path) -> None:
    def identity() -> str:
        return chains(run / "student/student")["test_vit"].identity

    before = identity()
    assert identity() == before
    for stage, kind in (("proxy/proxy", "heads"), ("student/student", "statistics")):
        file = run / stage / f"{kind}.safetensors"
        state = load_file(file)
        save_file({k: v + 1 if "cls" in k else v for k, v in state.items()}, file)
        write_ending(file.parent.parent)
        assert identity() != before
        before = identity()


def test_the_shortest_way_is_taken(run: Path) -> None:
    student = load_student(run / "finetuned/student")
    cls = torch.randn(3, student.encoder.cls_dim)
    found = chains(run / "finetuned/student")
    torch.testing.assert_close(found["test_resnet"](cls), step(student, "net", cls))
    proxy = load_student(run / "proxy/proxy")
    expected = step(proxy, "vit", step(student, "proxy", cls))
    torch.testing.assert_close(found["test_vit"](cls), expected)


def test_a_run_a_stage_and_a_student_have_chains(run: Path) -> None:
    for source, experts in (
        (run, {"test_vit", "test_resnet"}),
        (run / "proxy", {"test_vit", "test_resnet"}),
        (str(run / "finetuned" / "student"), {"test_vit", "test_resnet"}),
    ):
        encoder, found = load_with_chains(source)
        assert set(found) == experts
        for chain in found.values():
            assert len(chain(torch.randn(2, encoder.cls_dim))) == 2
    with pytest.raises(InputError, match="the run's stages are"):
        load_with_chains(run / "stage9")


def test_outside_its_run_a_student_knows_its_own_teachers(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "finetuned/student", tmp_path / "away/student")
    assert set(chains(tmp_path / "away/student")) == {"test_resnet"}


@pytest.mark.parametrize(
    "made",
    [{"pretrained": False, "args": {}}, {"pretrained": True, "args": {"class_token": "mean"}}],
)
def test_a_teacher_with_other_class_tokens_is_not_the_expert_of_its_name(
    run: Path, tmp_path: Path, made: dict[str, Any]
) -> None:
    student = tmp_path / "away/student"  # without the recipe, which would say so
    shutil.copytree(run / "finetuned/student", student)
    info = json.loads((student / "distillation.json").read_text())
    info["teachers"]["net"] |= made
    (student / "distillation.json").write_text(json.dumps(info))
    assert chains(student) == {}
    recipe = run / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("args: {}", f"args: {json.dumps(made['args'])}"))
    assert ("test_resnet" in chains(run / "finetuned/student")) == (not made["args"])


def test_what_was_not_distilled_has_no_chains(tmp_path: Path) -> None:
    encoder = openeupe.create("test_vit")
    openeupe.encoders.save(encoder, tmp_path / "plain")
    assert load_with_chains(tmp_path / "plain")[1] == {}
    assert load_with_chains("untrained:test_vit")[1] == {}
