"""Folders in the layout of transformers: ours that it opens, and its that we open."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import openeupe
from openeupe.encoders import transformers_folder
from openeupe.errors import InputError

from .networks import IMAGES, made, same, write_folder


def assert_class_token(folder: Path, model: Any) -> None:
    """Opened by us, a folder gives the class token of transformers' own model."""
    encoder = openeupe.load(folder)
    with torch.no_grad():
        theirs = model((IMAGES - encoder.mean) / encoder.std).pooler_output
        torch.testing.assert_close(encoder(IMAGES).cls, theirs, rtol=0, atol=1e-5)


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
    assert_class_token(tmp_path, model)


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
        write_folder(tmp_path, {key: v for key, v in stated.items() if key != "hidden_act"})
    if not opens:
        with pytest.raises(InputError, match=r"hidden_act .* cannot be read"):
            openeupe.load(tmp_path)
        return
    assert_class_token(tmp_path, model)


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
    assert_class_token(tmp_path, model)


def test_random_coordinates_of_training_come_along(tmp_path: Path) -> None:
    encoder = made("eupe_vit_t", depth=1, rope_rescale_coords=1.5, rope_shift_coords=0.1)
    transformers_folder.save(encoder, tmp_path)
    rope: Any = openeupe.load(tmp_path).trunk.rope  # type: ignore[union-attr]
    assert (rope.rescale_coords, rope.shift_coords, rope.jitter_coords) == (1.5, 0.1, None)
