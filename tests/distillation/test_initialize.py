from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from openeupe.distillation.check import check_recipe
from openeupe.distillation.initialize import initialize, measure_batch_norm, plan_cut, spread
from openeupe.distillation.recipe import Recipe
from openeupe.distillation.run import run_recipe
from openeupe.encoders import Encoder, create
from openeupe.errors import InputError
from tests.tiny_recipe import network

IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
VIT = {"depth": 4, "embed_dim": 96, "num_heads": 6}


def larger_vit(**args: Any) -> Encoder:
    torch.manual_seed(1)
    return create("test_vit", **(VIT | args)).eval()


def test_positions_are_evenly_spaced_with_both_ends() -> None:
    assert spread(4, 4) == [0, 1, 2, 3]
    assert spread(2, 12) == [0, 11]
    assert spread(1, 5) == [0]
    assert spread(5, 9) == [0, 2, 4, 6, 8]


@pytest.mark.parametrize("name", ["test_vit", "test_convnext", "test_efficientnet", "test_resnet"])
def test_of_a_network_of_the_same_size_everything_is_taken(name: str) -> None:
    torch.manual_seed(0)
    larger, student = create(name).eval(), create(name).eval()
    cut = initialize(student, larger)
    assert not cut.left
    for one, other in zip(student(IMAGES), larger(IMAGES), strict=True):
        assert torch.equal(one, other)


def test_layers_whole_heads_and_the_same_channels_of_all_layers_are_taken() -> None:
    larger = larger_vit()  # heads of 16
    student = create("test_vit", depth=2, embed_dim=32, num_heads=2).eval()
    assert not initialize(student, larger).left
    mine, theirs = student.state_dict(), larger.state_dict()
    channels = spread(32, 96)
    heads = torch.cat([torch.arange(16), torch.arange(80, 96)])  # the first and the last of six
    for ours, other in ((0, 0), (1, 3)):
        block, source = f"trunk.blocks.{ours}", f"trunk.blocks.{other}"
        rows = torch.cat([heads, heads + 96, heads + 192])
        qkv = theirs[f"{source}.attn.qkv.weight"][rows][:, channels]
        assert torch.equal(mine[f"{block}.attn.qkv.weight"], qkv)
        proj = theirs[f"{source}.attn.proj.weight"][channels][:, heads]
        assert torch.equal(mine[f"{block}.attn.proj.weight"], proj)
        norm = theirs[f"{source}.norm1.weight"][channels]
        assert torch.equal(mine[f"{block}.norm1.weight"], norm)
    assert torch.equal(mine["trunk.pos_embed"], theirs["trunk.pos_embed"][..., channels])


def test_position_embeddings_are_resampled() -> None:
    larger = larger_vit(img_size=64, depth=8)
    with torch.no_grad():
        larger.trunk.pos_embed.copy_(torch.ones_like(larger.trunk.pos_embed) * 3)
    student = create("test_vit", img_size=32).eval()
    assert student.trunk.pos_embed.shape[1] != larger.trunk.pos_embed.shape[1]
    assert "trunk.pos_embed" in initialize(student, larger).taken
    torch.testing.assert_close(
        student.trunk.pos_embed, torch.full_like(student.trunk.pos_embed, 3.0)
    )


@pytest.mark.parametrize(
    ("student", "larger"), [("test_resnet", "test_vit"), ("test_vit2", "test_vit")]
)
def test_another_kind_and_a_smaller_network_are_refused(student: str, larger: str) -> None:
    small = {} if student == "test_resnet" else {"depth": 1, "embed_dim": 16, "num_heads": 1}
    with torch.device("meta"), pytest.raises(InputError, match="not a larger network of the kind"):
        plan_cut(create(student), create(larger, **small))


def test_batch_norm_is_the_mean_of_what_is_measured_and_keeps_its_momentum() -> None:
    network = nn.Sequential(nn.BatchNorm2d(3, momentum=0.01)).eval()
    measure_batch_norm(network, [IMAGES, IMAGES + 1])
    wanted = (IMAGES.mean((0, 2, 3)) + (IMAGES + 1).mean((0, 2, 3))) / 2
    torch.testing.assert_close(network[0].running_mean, wanted)
    assert network[0].momentum == 0.01
    assert not network.training


def with_init(raw: dict[str, Any], init: str, stage: str = "student") -> dict[str, Any]:
    student = network("test_vit2", 64) | {"init": init}
    del student["pretrained"]
    raw["stages"][stage]["students"] = {"student": student}
    del raw["stages"]["finetuned"]
    return raw


def test_a_student_starts_from_the_proxy_of_an_earlier_stage(
    raw_recipe: dict[str, Any], tmp_path: Path
) -> None:
    raw = with_init(raw_recipe, "stage:proxy")
    raw["stages"]["student"]["optimizer"] = {"lr": 1e-12}
    recipe = Recipe.model_validate(raw)
    check_recipe(recipe)
    run = run_recipe(recipe, tmp_path / "run")
    proxy, student = run.student("proxy").encoder, run.student("student").encoder
    for one, other in zip(student(IMAGES), proxy(IMAGES), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
    start = run.student("student").info.start
    assert start is not None
    assert start.encoder == "stage:proxy"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"init": "stage:nowhere"}, r"init: no earlier stage is named 'nowhere'"),
        ({"init": "test_resnet"}, r"students\.student: init: .*not a larger network"),
        ({"init": "test_vit", "pretrained": True}, "init and pretrained are two starts"),
        ({"init": "test_vit", "encoder": "stage:proxy"}, "brings its own weights: leave init out"),
    ],
)
def test_a_start_that_cannot_be_is_refused_before_work(
    raw_recipe: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    raw = with_init(raw_recipe, "stage:proxy")
    raw["stages"]["student"]["students"]["student"] |= change
    with pytest.raises((InputError, ValueError), match=message):
        check_recipe(Recipe.model_validate(raw))
