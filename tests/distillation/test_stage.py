from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch

from openeupe.distillation.loss import token_losses
from openeupe.distillation.precision import resolve_precision
from openeupe.distillation.recipe import Recipe
from openeupe.distillation.stage import Stage, Views
from openeupe.encoders import create
from openeupe.seeds import seeded
from tests.tiny_recipe import network


@pytest.fixture
def stage(raw_recipe: dict[str, Any]) -> Stage:
    raw_recipe["stages"] = {"proxy": raw_recipe["stages"]["proxy"]}
    second = network("test_convnext", [32, 64])
    raw_recipe["stages"]["proxy"]["students"]["second"] = second
    raw_recipe["stages"]["proxy"] |= {"teacher_precision": "fp32", "student_precision": "fp32"}
    config = Recipe.model_validate(raw_recipe).stages["proxy"]
    with seeded(0):
        return Stage(
            "proxy",
            config,
            {k: create(t.encoder) for k, t in config.teachers.items()},
            {k: create(s.encoder) for k, s in config.students.items()},
            seed=3,
        )


def batch() -> torch.Tensor:
    return torch.randint(0, 256, (4, 3, 64, 64), generator=torch.Generator().manual_seed(0)).byte()


def test_teachers_are_frozen_and_in_eval_mode_whatever_the_stage_is(stage: Stage) -> None:
    stage.train()
    assert not any(m.training for m in stage.teachers.modules())
    assert all(m.training for m in stage.students.modules())
    assert not any(p.requires_grad for p in stage.teachers.parameters())
    views = Views(batch())
    targets = stage.targets(views, 0)
    stage.total(stage.losses("proxy", views, targets, 0)).backward()
    assert all(p.grad is None for p in stage.teachers.parameters())
    assert all(p.grad is None for p in stage.students["second"].parameters())
    assert any(p.grad is not None for p in stage.students["proxy"].parameters())


def test_losses_are_those_of_adapted_tokens_against_standardized_ones(stage: Stage) -> None:
    stage.eval()
    views = Views(batch())
    stage.measure_statistics([(0, batch())])
    losses = stage.losses("proxy", views, stage.targets(views, 0), 0)
    for name, resolution in (("vit", 32), ("net", 64)):
        with torch.no_grad():
            target = stage.statistics[name](stage.teacher_tokens(name, views, 0))
            predicted = stage.heads["proxy"][name](stage.students["proxy"](views.at(32)))
        expected = token_losses(predicted, target, stage.config.loss)
        assert stage.resolution("teacher", name, 0) == resolution
        torch.testing.assert_close(losses[name].cls, expected.cls)
        torch.testing.assert_close(losses[name].patches, expected.patches)
    total = sum(float(x.detach()) for loss in losses.values() for x in loss)
    assert float(stage.total(losses).detach()) == pytest.approx(
        total, rel=1e-5
    )  # every weight is 1


def test_weights_of_a_teacher_scale_its_losses(stage: Stage) -> None:
    views = Views(batch())
    losses = stage.losses("proxy", views, stage.targets(views, 0), 0)
    teachers = stage.config.teachers
    changed = teachers | {"net": teachers["net"].model_copy(update={"patch_weight": 0.0})}
    before = float(stage.total(losses).detach())
    stage.config = stage.config.model_copy(update={"teachers": changed})
    after = float(stage.total(losses).detach())
    assert before - after == pytest.approx(float(losses["net"].patches.detach()), rel=1e-4)


def test_statistics_make_the_targets_standard(stage: Stage) -> None:
    stage.measure_statistics([(0, batch())])
    targets = stage.targets(Views(batch()), 0)
    for name in ("vit", "net"):
        assert targets[name].cls.mean().abs() < 1e-3
        spread = targets[name].patches.std(dim=(0, 2, 3), correction=0)
        assert spread.max() < 1.01
        assert spread.median() > 0.9


def test_sides_are_drawn_evenly_independently_and_by_step_alone(stage: Stage) -> None:
    wide = {"resolution": (32, 48, 64)}
    config = stage.config
    teachers = {k: t.model_copy(update=wide) for k, t in config.teachers.items()}
    students = {k: s.model_copy(update=wide) for k, s in config.students.items()}
    stage.config = config.model_copy(update={"teachers": teachers, "students": students})
    draws = [
        (stage.resolution("teacher", "vit", s), stage.resolution("student", "proxy", s))
        for s in range(3000)
    ]
    pairs = Counter(draws)
    assert len(pairs) == 9
    # 1,000 / 3 expected of each pair, standard deviation 17: 5 of them
    assert all(abs(n - 1000 / 3) < 85 for n in pairs.values())
    assert draws[1234] == (
        stage.resolution("teacher", "vit", 1234),
        stage.resolution("student", "proxy", 1234),
    )


def test_views_share_a_resized_batch() -> None:
    views = Views(batch())
    assert views.at(32) is views.at(32)
    assert views.at(32).shape == (4, 3, 32, 32)
    torch.testing.assert_close(views.at(64), batch().float() / 255)


def test_precision_is_a_choice() -> None:
    cpu = torch.device("cpu")
    assert resolve_precision("bf16", cpu) == "bf16"
    assert resolve_precision("fp32", cpu) == "fp32"
    assert resolve_precision("auto", cpu) in ("bf16", "fp32")


def test_bf16_teachers_give_nearly_the_same_targets(stage: Stage) -> None:
    views = Views(batch())
    exact = {}
    for precision in ("fp32", "bf16"):
        stage.config = stage.config.model_copy(update={"teacher_precision": precision})
        exact[precision] = stage.teacher_tokens("vit", views, 0).patches.float()
    cosine = torch.nn.functional.cosine_similarity(exact["fp32"], exact["bf16"], dim=1)
    assert not torch.equal(exact["fp32"], exact["bf16"])
    assert cosine.min() > 0.99
