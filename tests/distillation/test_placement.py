"""Where networks lie and how they run changes nothing but rounding."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from openeupe.distillation.metrics import read_metrics
from openeupe.distillation.placement import (
    checkpoint_activations,
    compile_networks,
    hold_in_bf16,
    repeated_layers,
    unsharded,
)
from openeupe.distillation.recipe import Recipe
from openeupe.distillation.run import run_recipe
from openeupe.distillation.stage import Stage
from openeupe.distributed import Processes
from openeupe.encoders import create
from openeupe.encoders.meta import on_meta
from openeupe.encoders.pixels import RawPixels
from openeupe.errors import InputError
from tests.tiny_recipe import network


def losses(raw: dict[str, Any], folder: Path) -> list[dict[str, float]]:
    run_recipe(Recipe.model_validate(raw), folder)
    records = read_metrics(folder / "proxy" / "metrics.jsonl")
    return [{k: v for k, v in r.items() if k not in ("images_per_s", "waiting")} for r in records]


@pytest.fixture
def raw(raw_recipe: dict[str, Any]) -> dict[str, Any]:
    """One stage in fp32; the student has no batch norm, whose statistics go by parts."""
    stage = raw_recipe["stages"]["proxy"]
    stage |= {"log_every": 1, "teacher_precision": "fp32", "student_precision": "fp32"}
    raw_recipe["stages"] = {"proxy": stage}
    return raw_recipe


def test_a_student_of_several_processes_is_saved_with_its_own_constants(
    raw_recipe: dict[str, Any],
) -> None:
    student = create("test_vit2")
    student.set_constants([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])  # as of a folder that it starts from
    student.resolution = 64
    config = Recipe.model_validate(raw_recipe).stages["proxy"]
    teachers = {name: create(t.encoder) for name, t in config.teachers.items()}
    stage = Stage("proxy", config, teachers, {"proxy": student}, seed=0)
    made, _ = unsharded(stage, "proxy", Processes(torch.device("cpu"), count=2))
    assert made is not student
    assert made.constants == student.constants
    assert made.resolution == 64


def assert_same(one: list[dict[str, float]], other: list[dict[str, float]]) -> None:
    for here, there in zip(one, other, strict=True):
        assert here == pytest.approx(there, rel=2e-4)


def test_parts_and_recomputing_give_the_same_losses(raw: dict[str, Any], tmp_path: Path) -> None:
    plain = losses(raw, tmp_path / "plain")
    raw["stages"]["proxy"]["students"]["proxy"]["checkpoint_activations"] = True
    assert losses(raw, tmp_path / "again") == plain  # to the last bit
    raw["stages"]["proxy"]["accumulate"] = 2
    assert_same(losses(raw, tmp_path / "parts"), plain)


def test_how_the_work_is_done_may_change_in_a_run_that_has_begun(
    raw: dict[str, Any], tmp_path: Path
) -> None:
    plain = losses(raw, tmp_path / "run")
    raw["stages"]["proxy"] |= {"shard": "never", "compile": "teachers"}
    assert losses(raw, tmp_path / "run") == plain  # finished before; not refused
    raw["stages"]["proxy"]["accumulate"] = 2  # batch norm would see parts
    with pytest.raises(InputError, match=r"stages\.proxy\.accumulate: 1 then, 2 now"):
        losses(raw, tmp_path / "run")


def test_checkpointing_keeps_less_of_the_forward_pass() -> None:
    def kept(checkpointing: bool) -> int:
        student = create("test_vit").train()
        if checkpointing:
            checkpoint_activations(student)
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t: sizes.append(t.nbytes) or t,  # type: ignore[func-returns-value]
            lambda t: t,
        ):
            student(torch.rand(8, 3, 64, 64))
        return sum(sizes)

    assert kept(True) < 0.5 * kept(False)


@pytest.mark.parametrize("name", ["test_vit", "test_resnet"])
def test_teachers_held_in_bf16_say_the_same(name: str) -> None:
    teacher = create(name).eval()
    images = torch.rand(2, 3, 64, 64)
    before = sum(p.nbytes for p in teacher.parameters())
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        exact = teacher(images)
        hold_in_bf16(teacher)
        held = teacher(images)
    assert torch.equal(exact.cls, held.cls)
    assert torch.equal(exact.patches, held.patches)
    assert sum(p.nbytes for p in teacher.parameters()) < 0.6 * before


def test_weights_that_a_layer_standardizes_itself_are_left_in_float32() -> None:
    teacher = create("test_nfnet").eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        exact = teacher(images)
        hold_in_bf16(teacher)
        held = teacher(images)
    assert torch.equal(exact.patches, held.patches)


def test_what_is_compiled_are_the_blocks() -> None:
    def kinds(name: str) -> dict[str, int]:
        with on_meta():
            return dict(Counter(type(layer).__name__ for layer in repeated_layers(create(name))))

    assert kinds("eupe_vit_t") == {"EvaBlock": 12}
    assert kinds("eupe_convnext_t") == {"ConvNeXtBlock": 18}
    assert kinds("resnet50") == {"Bottleneck": 16}
    assert kinds("test_resnet") == {}  # compiled whole


def test_what_cannot_checkpoint_is_refused() -> None:
    with pytest.raises(InputError, match="raw_pixels cannot checkpoint activations"):
        checkpoint_activations(RawPixels())


@pytest.mark.slow
def test_compiled_networks_give_the_same_losses(raw: dict[str, Any], tmp_path: Path) -> None:
    """Teachers and students, a transformer of two sides and a ConvNet, forward and backward."""
    stage = raw["stages"]["proxy"]
    noise = {"drop_path_rate": 0.3}  # compiled blocks draw as the plain ones do
    stage["students"]["proxy"] = network("test_vit2", depth=2, **noise)
    stage["students"]["second"] = network("test_convnext", [32, 64], **noise)
    plain = losses(raw, tmp_path / "plain")
    for which in ("teachers", "all"):
        stage["compile"] = which
        assert_same(losses(raw, tmp_path / which), plain)


@pytest.mark.slow
def test_compiled_blocks_draw_the_dropout_of_plain_ones() -> None:
    student = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5))
    images = torch.ones(4, 8)
    torch.manual_seed(0)
    plain = student(images)
    stage: Any = SimpleNamespace(teachers={}, students={"net": student}, heads=nn.ModuleDict())
    compile_networks(stage, students=True)
    torch.manual_seed(0)
    torch.testing.assert_close(student(images), plain)
