"""Folders that timm and transformers open, and theirs that we open: the same features."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import openeupe
from openeupe.encoders import Encoder, resolve, timm_folder, transformers_folder
from openeupe.errors import InputError

from .networks import IMAGES, made, same, write_folder


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("eupe_vit_t", {"depth": 2}),
        ("eupe_proxy", {"width": 96, "depth": 2, "heads": 3, "registers": 2}),
        ("convnext_atto", {}),
        ("vit_tiny_patch16_224", {"depth": 2, "resolution": 64}),
        ("resnet10t", {}),
    ],
)
def test_timm_opens_our_folder_and_so_do_we(
    name: str, args: dict[str, Any], tmp_path: Path
) -> None:
    encoder = made(name, **args)
    timm_folder.save(encoder, tmp_path, "mit")
    more = {"dynamic_img_size": True} if name == "vit_tiny_patch16_224" else {}
    model = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, **more).eval()
    with torch.no_grad():
        cls = model((IMAGES - encoder.mean) / encoder.std)
        torch.testing.assert_close(cls, encoder(IMAGES).cls, rtol=1e-5, atol=1e-5)
    stated = json.loads((tmp_path / "config.json").read_text())["pretrained_cfg"]
    assert (stated["license"], stated["tag"]) == ("mit", "openeupe")
    again = openeupe.load(tmp_path)
    assert same(encoder, again)
    assert again.resolution == encoder.resolution
    assert torch.equal(again.mean, encoder.mean)


def given_back(opening: timm_folder.Opening, folder: Path, encoder: Encoder) -> list[Tensor]:
    """What a card's lines give to timm's users: class token and feature map."""
    known: dict[str, Any] = {
        "model": timm.create_model(f"local-dir:{folder}", pretrained=True).eval(),
        "pixels": (IMAGES - encoder.mean) / encoder.std,
    }
    with torch.no_grad():
        exec(f"features = {opening.features}\ncls = {opening.cls}", known)
    return [known["cls"], known["features"]]


@pytest.mark.parametrize(
    ("name", "args"),
    [
        *[("eupe_vit_t", {"depth": 1, "class_token": t}) for t in ("own", "mean", "pooled")],
        ("vit_pe_core_tiny_patch16_384", {"depth": 1, "class_token": "projected"}),
        ("vit_pe_core_tiny_patch16_384", {"depth": 1, "class_token": "mean"}),
        ("vit_base_patch16_siglip_224", {"depth": 1, "class_token": "mean"}),
        ("deit_tiny_distilled_patch16_224", {"depth": 1}),
        ("eva02_tiny_patch14_224", {"depth": 1, "class_token": "own", "patch_size": 16}),
        ("convnext_atto", {"class_token": "mean"}),
        ("mobilenetv3_small_050", {"class_token": "mean"}),
        ("vit_tiny_patch16_224", {"depth": 1, "num_classes": 10}),
    ],
)
def test_timms_users_get_the_tokens_of_every_class_token(
    name: str, args: dict[str, Any], tmp_path: Path
) -> None:
    encoder = made(name, **args)
    opening = timm_folder.save(encoder, tmp_path, "mit")
    with torch.no_grad():
        tokens = encoder(IMAGES)
    cls, features = given_back(opening, tmp_path, encoder)
    torch.testing.assert_close(cls, tokens.cls, rtol=1e-5, atol=1e-5)
    if features.ndim == 3:
        features = features[:, -tokens.patches[0, 0].numel() :].transpose(1, 2)
    torch.testing.assert_close(features.flatten(2), tokens.patches.flatten(2), rtol=1e-5, atol=1e-5)
    assert same(encoder, openeupe.load(tmp_path))


def test_a_folder_that_timm_would_open_differently_is_refused(tmp_path: Path) -> None:
    encoder = made("resnet10t", num_classes=10)  # timm's users would get the classes
    with pytest.raises(InputError, match="other tokens when timm opens it: save it as openeupe"):
        timm_folder.save(encoder, tmp_path, "mit")
    changed = made("resnet10t")
    changed.trunk.layer4[0].act2 = torch.nn.Tanh()  # type: ignore[union-attr, index]
    with pytest.raises(InputError, match="other tokens when timm opens it: save it as openeupe"):
        timm_folder.save(changed, tmp_path, "mit")


def test_a_folder_for_timm_of_an_older_version_keeps_its_mean_token(tmp_path: Path) -> None:
    encoder = made("eupe_vit_t", depth=1, class_token="mean")
    timm_folder.save(encoder, tmp_path, "mit")
    config = json.loads((tmp_path / "config.json").read_text())
    del config["openeupe"], config["model_args"]["use_fc_norm"]
    write_folder(tmp_path, config)
    assert same(encoder, openeupe.load(tmp_path))


def test_a_side_that_the_patches_do_not_divide_is_brought_to_one_that_they_do(
    tmp_path: Path,
) -> None:
    timm_folder.save(made("resnet10t"), tmp_path, "mit")
    config = json.loads((tmp_path / "config.json").read_text())
    config["pretrained_cfg"]["input_size"] = [3, 176, 176]  # as timm's own folders state
    write_folder(tmp_path, config)
    assert openeupe.load(tmp_path).resolution == 192


@pytest.mark.parametrize("kind", ["timm", "transformers", "openeupe"])
def test_a_network_in_bfloat16_keeps_exact_constants(kind: str, tmp_path: Path) -> None:
    encoder = made("eupe_vit_t", depth=1)
    constants = encoder.constants
    half = made("eupe_vit_t", depth=1).bfloat16()
    if kind == "timm":
        timm_folder.save(half, tmp_path, "mit")
    elif kind == "transformers":
        transformers_folder.save(half, tmp_path)
    else:
        openeupe.encoders.save(half, tmp_path)
    again = openeupe.load(tmp_path)
    assert again.constants == constants == ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    assert torch.equal(again.mean, encoder.mean)


@pytest.mark.parametrize("layout", ["timm", "transformers"])
def test_others_have_no_form_for_every_encoder(layout: str, tmp_path: Path) -> None:
    save = {"timm": timm_folder.save, "transformers": transformers_folder.save}[layout]
    more = ["mit"] if layout == "timm" else []
    for encoder in [made("raw_pixels")] + [made("resnet10t")] * (layout == "transformers"):
        with pytest.raises(InputError, match="save it as"):
            save(encoder, tmp_path, *more)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"architecture": "vit_of_tomorrow"}, "timm knows no architecture 'vit_of_tomorrow'"),
        ({"architecture": "resnet10t", "model_args": {"in_chans": 4}}, "takes RGB images"),
        ({"architecture": "resnet10t", "model_args": {"checkpoint_path": "x"}}, "cannot be set"),
        ({"architecture": "resnet10t", "model_args": {"width": 3}}, "correct the arguments"),
        ({"architecture": "resnet10t"}, "lacks|cannot be loaded"),
        ({"model_type": "bert"}, "of type 'bert' cannot be read"),
        ({"model_type": "dinov3_vit"}, "config.json is damaged"),
        ({"model_type": "dinov3_vit", "hidden_size": 0, "num_hidden_layers": 1,
          "num_attention_heads": 1, "intermediate_size": 4}, "damaged"),
        ({"model_type": "dinov3_convnext", "hidden_sizes": [8], "depths": [1]}, "damaged"),
        ({"model_type": "dinov3_convnext", "hidden_sizes": [8, 8, 8, 8], "depths": [1, 1, 1, 1]},
         "lacks"),
    ],
)  # fmt: skip
def test_a_folder_that_does_not_fit_is_one_line(
    config: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message) as error:
        openeupe.load(write_folder(tmp_path, config, {"a": torch.zeros(1)}))
    assert "\n" not in str(error.value)


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    transformers_folder.save(made("eupe_vit_t", depth=1), tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["norm.weight"] = torch.zeros(5)
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"norm.weight has shape \[5\]"):
        openeupe.load(tmp_path)


def test_code_beside_a_model_is_never_run(tmp_path: Path) -> None:
    """transformers would run it with trust_remote_code; here it is no more than a file."""
    transformers_folder.save(made("eupe_vit_t", depth=1), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "evil.py").write_text("raise SystemExit('run')")
    config["auto_map"] = {"AutoModel": "evil.Model", "AutoConfig": "evil.Config"}
    write_folder(tmp_path, config)
    assert openeupe.load(tmp_path).cls_dim == 192


def test_a_file_of_another_kind_is_told(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(InputError, match=r"is no weights file: those end in \.pt"):
        openeupe.load(tmp_path / "notes.txt")


def test_describe_needs_no_weights(tmp_path: Path) -> None:
    timm_folder.save(made("convnext_atto"), tmp_path, "mit")
    (tmp_path / "model.safetensors").unlink()
    name, args = resolve(tmp_path).describe()
    assert name == "convnext_atto"
    assert openeupe.create(name, **args).cls_dim == 320
