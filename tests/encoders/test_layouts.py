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
from openeupe.encoders import Encoder, describe, timm_folder, transformers_folder
from openeupe.errors import InputError

IMAGES = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def made(name: str, **args: Any) -> Encoder:
    """An encoder whose every part acts: layer scales of 1e-5 would hide most of it."""
    torch.manual_seed(0)
    encoder = openeupe.create(name, **args).eval()
    with torch.no_grad():
        for key, tensor in encoder.named_parameters():
            if "gamma" in key or key.endswith("bias"):
                tensor.uniform_(0.2, 0.6)
    return encoder


def same(encoder: Encoder, other: Encoder) -> bool:
    with torch.no_grad():
        ours, theirs = encoder(IMAGES), other(IMAGES)
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


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


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("eupe_vit_t", {"depth": 2}),
        ("eupe_proxy", {"width": 96, "depth": 2, "heads": 3, "registers": 2}),
        ("dinov3_h_plus", {"depth": 1, "embed_dim": 96, "num_heads": 3}),
        ("eupe_convnext_t", {}),
        ("convnext_tiny", {"dims": [16, 32, 48, 64], "depths": [1, 1, 2, 1]}),
    ],
)
def test_transformers_opens_our_folder_and_so_do_we(
    name: str, args: dict[str, Any], tmp_path: Path
) -> None:
    from transformers import AutoImageProcessor, AutoModel

    encoder = made(name, **args)
    transformers_folder.save(encoder, tmp_path)
    model, told = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(told[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    with torch.no_grad():
        theirs = model.eval()((IMAGES - encoder.mean) / encoder.std)
        ours = encoder(IMAGES)
    torch.testing.assert_close(theirs.pooler_output, ours.cls, rtol=0, atol=1e-5)
    patches = theirs.last_hidden_state[:, -ours.patches[0, 0].numel() :]
    torch.testing.assert_close(patches, ours.patches.flatten(2).transpose(1, 2), rtol=0, atol=1e-5)
    processor = AutoImageProcessor.from_pretrained(tmp_path)
    assert processor.image_mean == pytest.approx(encoder.mean.flatten().tolist())
    again = openeupe.load(tmp_path)
    assert same(encoder, again)
    assert again.resolution == encoder.resolution


def test_what_transformers_itself_saves_is_opened(tmp_path: Path) -> None:
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    torch.manual_seed(0)
    config = DINOv3ViTConfig(
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=100,
        num_register_tokens=3,
        patch_size=8,
    )
    model = DINOv3ViTModel(config).eval()
    model.save_pretrained(tmp_path)
    encoder = openeupe.load(tmp_path)
    with torch.no_grad():
        theirs = model((IMAGES - encoder.mean) / encoder.std).pooler_output
        torch.testing.assert_close(encoder(IMAGES).cls, theirs, rtol=0, atol=1e-5)


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
    _write(tmp_path, config)
    assert same(encoder, openeupe.load(tmp_path))


def test_a_side_that_the_patches_do_not_divide_is_brought_to_one_that_they_do(
    tmp_path: Path,
) -> None:
    timm_folder.save(made("resnet10t"), tmp_path, "mit")
    config = json.loads((tmp_path / "config.json").read_text())
    config["pretrained_cfg"]["input_size"] = [3, 176, 176]  # as timm's own folders state
    _write(tmp_path, config)
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


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("convnext_tiny", {"act_layer": "relu"}),
        ("convnext_tiny", {"act_layer": "silu", "norm_eps": 1e-2}),
    ],
)
def test_activation_and_epsilon_reach_transformers(
    name: str, args: dict[str, Any], tmp_path: Path
) -> None:
    from transformers import AutoModel

    encoder = made(name, dims=[16, 32, 48, 64], depths=[1, 1, 2, 1], **args)
    transformers_folder.save(encoder, tmp_path)
    assert same(encoder, openeupe.load(tmp_path))
    model = AutoModel.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        theirs = model((IMAGES - encoder.mean) / encoder.std).pooler_output
        torch.testing.assert_close(theirs, encoder(IMAGES).cls, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("eupe_vit_t", {"depth": 1, "qk_norm": True}),
        ("eupe_vit_t", {"depth": 1, "rope_grid_offset": 0.25}),
        ("eupe_vit_t", {"depth": 1, "class_token": "mean"}),
        ("eupe_vit_t", {"depth": 1, "swiglu_mlp": True, "scale_mlp": True}),
        ("convnext_atto", {"act_layer": "gelu_tanh"}),
        ("convnext_atto", {"class_token": "mean"}),
        ("convnext_atto", {"kernel_sizes": 5}),
        ("convnext_atto", {"ls_init_value": None}),
        ("convnext_atto", {"stem_type": "overlap"}),
        ("convnext_atto", {"conv_mlp": True}),
    ],
)
def test_settings_that_transformers_lacks_are_refused(
    name: str, args: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="save it as timm or openeupe"):
        transformers_folder.save(made(name, **args), tmp_path)


@pytest.mark.parametrize(
    ("gated", "act", "opens"),
    [
        (False, "gelu", True),
        (False, "relu", False),
        (True, "silu", True),
        (True, "gelu", False),
        (True, None, False),  # gelu
    ],
)
def test_activations_of_transformers_vits_are_honoured_or_refused(
    gated: bool, act: str | None, opens: bool, tmp_path: Path
) -> None:
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    torch.manual_seed(0)
    settings: dict[str, Any] = {"hidden_act": act} if act else {}
    config = DINOv3ViTConfig(
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=100,
        use_gated_mlp=gated,
        patch_size=[16, 16],
        **settings,
    )
    model = DINOv3ViTModel(config).eval()
    model.save_pretrained(tmp_path)
    if act is None:
        stated = json.loads((tmp_path / "config.json").read_text())
        _write(tmp_path, {key: v for key, v in stated.items() if key != "hidden_act"})
    if not opens:
        with pytest.raises(InputError, match=r"hidden_act .* cannot be read"):
            openeupe.load(tmp_path)
        return
    encoder = openeupe.load(tmp_path)
    with torch.no_grad():
        theirs = model((IMAGES - encoder.mean) / encoder.std).pooler_output
        torch.testing.assert_close(encoder(IMAGES).cls, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("act", ["relu", "silu", "quick_gelu"])
def test_convnexts_of_transformers_keep_activation_and_epsilon(act: str, tmp_path: Path) -> None:
    from transformers import DINOv3ConvNextConfig, DINOv3ConvNextModel

    torch.manual_seed(0)
    config = DINOv3ConvNextConfig(
        hidden_sizes=[16, 32, 48, 64],
        depths=[1, 1, 2, 1],
        hidden_act=act,
        layer_norm_eps=0.1,
        layer_scale_init_value=0.5,
    )
    model = DINOv3ConvNextModel(config).eval()
    model.save_pretrained(tmp_path)
    if act == "quick_gelu":
        with pytest.raises(InputError, match=r"hidden_act 'quick_gelu' in config.json"):
            openeupe.load(tmp_path)
        return
    encoder = openeupe.load(tmp_path)
    with torch.no_grad():
        theirs = model((IMAGES - encoder.mean) / encoder.std).pooler_output
        torch.testing.assert_close(encoder(IMAGES).cls, theirs, rtol=0, atol=1e-5)


def test_random_coordinates_of_training_come_along(tmp_path: Path) -> None:
    encoder = made("eupe_vit_t", depth=1, rope_rescale_coords=1.5, rope_shift_coords=0.1)
    transformers_folder.save(encoder, tmp_path)
    rope: Any = openeupe.load(tmp_path).trunk.rope  # type: ignore[union-attr]
    assert (rope.rescale_coords, rope.shift_coords, rope.jitter_coords) == (1.5, 0.1, None)


@pytest.mark.parametrize("layout", ["timm", "transformers"])
def test_others_have_no_form_for_every_encoder(layout: str, tmp_path: Path) -> None:
    save = {"timm": timm_folder.save, "transformers": transformers_folder.save}[layout]
    more = ["mit"] if layout == "timm" else []
    for encoder in [made("raw_pixels")] + [made("resnet10t")] * (layout == "transformers"):
        with pytest.raises(InputError, match="save it as"):
            save(encoder, tmp_path, *more)  # type: ignore[operator]


def _write(folder: Path, config: Any, weights: dict[str, Tensor] | None = None) -> Path:
    (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    if weights is not None:
        save_file(weights, folder / "model.safetensors")
    return folder


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
        openeupe.load(_write(tmp_path, config, {"a": torch.zeros(1)}))
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
    _write(tmp_path, config)
    assert openeupe.load(tmp_path).cls_dim == 192


def test_a_file_of_another_kind_is_told(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(InputError, match=r"is no weights file: those end in \.pt"):
        openeupe.load(tmp_path / "notes.txt")


def test_describe_needs_no_weights(tmp_path: Path) -> None:
    timm_folder.save(made("convnext_atto"), tmp_path, "mit")
    (tmp_path / "model.safetensors").unlink()
    name, args = describe(tmp_path)
    assert name == "convnext_atto"
    assert openeupe.create(name, **args).cls_dim == 320


def test_a_hub_name_is_fetched_verified_and_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import hashlib
    from types import SimpleNamespace

    import huggingface_hub

    encoder = made("convnext_atto")
    timm_folder.save(encoder, tmp_path, "mit")
    (tmp_path / "code.py").write_text("raise SystemExit")
    digest = hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest()
    asked: list[str] = []

    def info(self: object, name: str, **_: object) -> SimpleNamespace:
        files = [SimpleNamespace(rfilename=p.name, lfs=None) for p in tmp_path.iterdir()]
        for file in files:
            if file.rfilename == "model.safetensors":
                file.lfs = SimpleNamespace(sha256=digest)
        return SimpleNamespace(siblings=files, sha="0" * 40)

    def one_file(name: str, file: str, revision: str) -> str:
        asked.append(file)
        return str(tmp_path / file)

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", info)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", one_file)
    assert same(encoder, openeupe.load("hf-hub:timm/convnext_atto.ours"))
    assert set(asked) == {"config.json", "model.safetensors"}
    digest = "0" * 64
    with pytest.raises(InputError, match="is not the file that the hub names"):
        openeupe.load("hf-hub:timm/convnext_atto.ours")


def test_the_cache_of_the_hub_client_stands_in_for_the_network_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub
    from huggingface_hub.errors import RevisionNotFoundError

    from openeupe.encoders.hub import download

    trouble: list[Exception] = [ConnectionError("no network")]

    def info(*_: object, **__: object) -> None:
        raise trouble[0]

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", info)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(tmp_path))
    with pytest.raises(InputError, match=r"cannot be had \(no network\)"):
        download("hf-hub:facebook/EUPE-ViT-T")  # something else of it is in the cache
    (tmp_path / "EUPE-ViT-T.pt").touch()
    assert download("hf-hub:facebook/EUPE-ViT-T") == tmp_path / "EUPE-ViT-T.pt"
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).touch()
    assert download("hf-hub:timm/net") == tmp_path
    trouble[0] = RevisionNotFoundError.__new__(RevisionNotFoundError, "no such revision")
    with pytest.raises(InputError, match=r"timm/net@v9 cannot be had"):
        download("hf-hub:timm/net@v9")
