"""Teachers in fp8, emulated by PyTorch on the CPU: what they say, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from openeupe.distillation import fp8
from openeupe.distillation.fp8 import Float8Linear, check_parity, hold_in_fp8
from openeupe.distillation.metrics import read_metrics
from openeupe.distillation.recipe import Recipe
from openeupe.distillation.run import run_recipe
from openeupe.encoders import create
from openeupe.errors import InputError
from tests.lines import Lines
from tests.tiny_recipe import network


def test_a_layer_in_fp8_is_near_its_original() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(64, 48)
    inputs = torch.randn(3, 5, 64) * torch.tensor([1e-3, 1.0, 1e3]).view(3, 1, 1)
    exact, coarse = layer(inputs), Float8Linear(layer)(inputs)
    assert coarse.dtype == torch.bfloat16
    assert coarse.shape == exact.shape
    for one, other in zip(exact, coarse, strict=True):  # each at its own scale
        assert (one - other).norm() < 0.05 * one.norm()
    assert Float8Linear(layer)(torch.zeros(2, 64)).isfinite().all()


@pytest.mark.parametrize("name", ["eupe_vit_t", "test_vit"])
def test_blocks_are_replaced_and_the_rest_is_not(name: str) -> None:
    teacher = create(name, **({"depth": 2} if name == "eupe_vit_t" else {})).eval()
    for key, parameter in teacher.named_parameters():  # so that every bias counts
        nn.init.normal_(parameter, std=0.3 if "bias" in key or "gamma" in key else 0.05)
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        exact = teacher(images)
        blocks = len(teacher.trunk.blocks)
        assert hold_in_fp8(teacher) == 4 * blocks
        assert not any(isinstance(m, nn.Linear) for m in teacher.trunk.blocks.modules())
        coarse = teacher(images)
    for one, other in zip(exact, coarse, strict=True):
        assert (one - other).norm() < 0.2 * one.norm()


def test_a_stage_trains_on_fp8_teachers(
    raw_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = raw_recipe["stages"]["proxy"]
    stage["teachers"] = {"vit": network("test_vit", depth=3)}  # the outer blocks stay in bf16
    stage |= {"steps": 2, "log_every": 1, "teacher_precision": "bf16", "student_precision": "fp32"}
    raw_recipe["stages"] = {"proxy": stage}

    told = Lines()

    def losses(folder: Path) -> list[float]:
        run_recipe(Recipe.model_validate(raw_recipe), folder, progress=told)
        return [r["total/proxy"] for r in read_metrics(folder / "proxy" / "metrics.jsonl")]

    plain = losses(tmp_path / "bf16")
    stage["teacher_precision"] = "fp8"
    monkeypatch.setattr(fp8, "_TOLERANCE", 1.0)  # these weights are random
    coarse = losses(tmp_path / "fp8")
    assert "fp8 changes the teachers' tokens by: vit " in told.text
    assert coarse != plain
    assert coarse == pytest.approx(plain, rel=0.1)


def test_what_fp8_cannot_do_is_refused(raw_recipe: dict[str, Any], tmp_path: Path) -> None:
    stage = raw_recipe["stages"]["proxy"] | {"teacher_precision": "fp8"}
    del stage["teachers"]["vit"]
    raw_recipe["stages"] = {"proxy": stage}
    with pytest.raises(InputError, match=r"teacher net cannot be in fp8 .*: set teacher_precision"):
        run_recipe(Recipe.model_validate(raw_recipe), tmp_path)


def test_too_large_an_error_is_refused() -> None:
    class Named:
        name = "proxy"

    check_parity(Named(), {"vit": 0.1})  # type: ignore[arg-type]
    for error in (0.5, float("nan")):
        with pytest.raises(InputError, match="fp8 moves the tokens of vit by"):
            check_parity(Named(), {"vit": error})  # type: ignore[arg-type]
