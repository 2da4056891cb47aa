"""Arguments of architectures are checked before anything is built."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

import openeupe
from openeupe.distillation.recipe import load_recipe
from openeupe.encoders import create, save, timm_folder
from openeupe.encoders.arguments import check_arguments, timm_class
from openeupe.errors import InputError


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("resnet10t", {"resolution": "224"}, "resolution.*int"),
        ("resnet10t", {"resolution": 64.0}, "resolution.*int"),
        ("resnet10t", {"resolution": True}, "resolution.*int"),
        ("resnet10t", {"resolution": -64}, "resolution -64.*16384"),
        ("resnet10t", {"resolution": 0}, "resolution 0.*16384"),
        ("resnet10t", {"resolution": 10**6}, "limit"),
        ("resnet10t", {"class_token": 3}, "class_token.*str"),
        ("eupe_vit_t", {"depth": 1_000_000}, "depth.*65536"),
        ("eupe_vit_t", {"depth": 60_000}, "20000 modules"),
        ("eupe_vit_t", {"depth": "2"}, "depth.*int"),
        ("eupe_vit_t", {"depth": 2.0}, "depth.*int"),
        ("eupe_vit_t", {"embed_dim": 65_536, "num_heads": 64, "depth": 12}, "parameters"),
        ("eupe_vit_t", {"mlp_ratio": float("nan")}, "mlp_ratio.*finite"),
        ("test_vit", {"img_size": [32, "32"]}, "img_size.*int"),
        ("eupe_proxy", {"depth": "2"}, "depth.*int"),
        ("eupe_proxy", {"width": 64.0}, "width.*int"),
        ("convnext_atto", {"depths": [3, 3, 1_000_000, 3]}, "depths.*65536"),
        ("convnext_atto", {"dims": [1] * 5000}, "dims.*1000"),
        ("test_vit", {"global_pool": "x" * 300}, "global_pool.*100"),
        ("hed", {"patches": 5}, "patches.*str"),
        ("resnet10t", {"block_args": {"a": object()}}, "block_args"),
        ("resnet10t", {"pretrained_strict": False}, "pretrained_strict cannot be set"),
        ("resnet10t", {"cache_dir": "/tmp"}, "cache_dir cannot be set"),
        ("resnet10t", {"timm_name": "x"}, "timm_name cannot be set"),
    ],
)
def test_arguments_are_refused_before_anything_is_built(
    name: str, args: dict[str, Any], message: str
) -> None:
    started = time.process_time()
    with pytest.raises(InputError, match=message):
        create(name, **args)
    assert time.process_time() - started < 60


def test_arguments_of_the_right_type_are_taken() -> None:
    assert create("test_vit", img_size=[32, 32], mlp_ratio=2).patch_size == 16
    assert create("test_vit", drop_path_rate=0, class_token="mean", resolution=64).resolution == 64
    assert create("eupe_vit_t", depth=1, embed_dim=32, num_heads=2).args["depth"] == 1


def test_checking_the_size_changes_no_random_weights() -> None:
    torch.manual_seed(0)
    plain = timm.create_model("test_vit", num_classes=0, dynamic_img_size=True, depth=2)
    torch.manual_seed(0)
    ours: Any = create("test_vit", depth=2)
    for one, other in zip(plain.parameters(), ours.trunk.parameters(), strict=True):
        assert torch.equal(one, other)


def test_no_default_of_timm_is_refused() -> None:
    """An annotation that its own default breaks would refuse what users write out."""
    import inspect

    wrong = []
    for kind in {timm_class(name) for name in timm.list_models()}:
        if not inspect.isclass(kind):
            continue
        for key, parameter in inspect.signature(kind).parameters.items():
            default = parameter.default
            if isinstance(default, int | float | str | tuple | list) and key != "in_chans":
                try:
                    check_arguments("it", {key: default}, kind)
                except InputError as error:
                    wrong.append(f"{kind.__name__}: {error}")
    assert not wrong


@pytest.mark.parametrize("key", ["name", "pretrained"])
def test_args_in_a_recipe_cannot_set_what_the_recipe_sets(key: str) -> None:
    with pytest.raises(InputError, match=f"args.*{key}"):
        load_recipe("direct", [f"stages.student.teachers.pe_core.args={{{key}: x}}"])


@pytest.mark.parametrize("args", [{"name": "x"}, {"pretrained": True}, {"depth": "2"}])
def test_args_in_an_encoder_folder_are_checked(args: dict[str, Any], tmp_path: Path) -> None:
    save(create("eupe_vit_t", depth=1, embed_dim=32, num_heads=2), tmp_path / "it")
    path = tmp_path / "it" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"args": config["args"] | args}))
    with pytest.raises(InputError, match=next(iter(args))):
        openeupe.load(tmp_path / "it")


@pytest.mark.parametrize(
    "args", [{"pretrained_strict": False}, {"pretrained": True}, {"name": "x"}, {"img_size": "64"}]
)
def test_args_in_a_timm_folder_are_checked(args: dict[str, Any], tmp_path: Path) -> None:
    tmp_path = tmp_path / "it"
    tmp_path.mkdir()
    timm_folder.save(create("test_vit"), tmp_path, "mit")
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    config["model_args"] = (config.get("model_args") or {}) | args
    path.write_text(json.dumps(config))
    with pytest.raises(InputError, match=next(iter(args))):
        openeupe.load(tmp_path)
