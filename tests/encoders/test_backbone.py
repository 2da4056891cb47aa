"""Any timm network as an encoder: class token, patch grid, sizes, norms, weights files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from openeupe.encoders import create
from openeupe.encoders.backbone import TimmEncoder
from openeupe.encoders.meta import on_meta
from openeupe.errors import InputError

NETWORKS = [
    "vit_tiny_patch16_224",  # absolute positions
    "vit_small_patch14_reg4_dinov2",  # registers
    "vit_pe_core_tiny_patch16_384",  # class token and attention pool
    "deit_tiny_distilled_patch16_224",  # two prefix tokens
    "vit_base_patch16_siglip_gap_224",  # no class token
    "eva02_tiny_patch14_224",  # norm behind the pool
    "swin_tiny_patch4_window7_224",  # channels last
    "convnext_atto",
    "mobilenetv3_small_100",  # layers between pool and classifier
    "efficientnet_b0",
    "resnet18",
    "xcit_nano_12_p16_224",
]


@pytest.mark.parametrize("name", NETWORKS)
def test_shapes_at_two_sizes(name: str) -> None:
    small = {"depth": 2} if name.startswith(("vit", "deit", "eva")) else {}
    encoder = create(name, **small).eval()
    patch = encoder.patch_size
    for h, w in [(4, 4), (3, 5)]:
        with torch.inference_mode():
            tokens = encoder(torch.rand(1, 3, h * patch, w * patch))
        assert tokens.cls.shape == (1, encoder.cls_dim)
        assert tokens.patches.shape == (1, encoder.patch_dim, h, w)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_parameter_gets_a_gradient(name: str) -> None:
    small = {"depth": 1} if name.startswith(("vit", "deit", "eva")) else {}
    encoder = create(name, **small).train()
    resolution = 4 * encoder.patch_size
    tokens = encoder(torch.rand(2, 3, resolution, resolution))
    (tokens.cls.square().sum() + tokens.patches.square().sum()).backward()
    assert not [key for key, p in encoder.named_parameters() if p.grad is None]


@torch.inference_mode()
def test_vit_tokens_are_timms_own() -> None:
    encoder = create("vit_small_patch14_reg4_dinov2", depth=2).eval()
    pixels = torch.rand(1, 3, 56, 84)
    tokens = encoder.tokens(pixels)
    raw = encoder.trunk.forward_features(pixels)  # type: ignore[union-attr, operator]
    torch.testing.assert_close(tokens.cls, raw[:, 0])
    # Row 1, column 2 of a 4 x 6 grid behind a class token and four registers.
    torch.testing.assert_close(tokens.patches[:, :, 1, 2], raw[:, 5 + 1 * 6 + 2])


@torch.inference_mode()
def test_convnext_norms_pool_and_patches_together() -> None:
    encoder = create("convnext_atto").eval()
    torch.nn.init.normal_(encoder.trunk.head.norm.weight)  # type: ignore[union-attr, arg-type]
    pixels = torch.rand(2, 3, 64, 96)
    tokens = encoder.tokens(pixels)
    raw = encoder.trunk.forward_features(pixels)  # type: ignore[union-attr, operator]
    norm = encoder.trunk.head.norm  # type: ignore[union-attr]
    both = torch.cat([raw.mean((2, 3))[:, :, None], raw.flatten(2)], 2)
    both = norm(both[:, :, None])[:, :, 0]  # type: ignore[operator]
    torch.testing.assert_close(tokens.cls, both[:, :, 0])
    torch.testing.assert_close(tokens.patches.flatten(2), both[:, :, 1:])


@torch.inference_mode()
def test_swin_grid_is_not_transposed() -> None:
    encoder = create("swin_tiny_patch4_window7_224").eval()
    pixels = torch.rand(1, 3, 64, 128)
    raw = encoder.trunk.forward_features(pixels)  # type: ignore[union-attr, operator]
    assert raw.shape == (1, 2, 4, 768)
    torch.testing.assert_close(encoder.tokens(pixels).patches[:, :, 1, 3], raw[:, 1, 3])


def test_input_constants_are_applied() -> None:
    encoder = create("vit_pe_core_tiny_patch16_384", depth=1).eval()
    images = torch.rand(1, 3, 32, 32)
    expected = encoder.tokens(images * 2 - 1)
    torch.testing.assert_close(encoder(images).patches, expected.patches)


def test_class_token_can_be_chosen() -> None:
    mean = create("vit_tiny_patch16_224", depth=1, class_token="mean").eval()
    tokens = mean(torch.rand(1, 3, 32, 32))
    torch.testing.assert_close(tokens.cls, tokens.patches.mean((2, 3)))
    assert mean.args == {"depth": 1, "class_token": "mean"}
    with pytest.raises(InputError, match="resnet18 has no class token 'own': use one of mean"):
        create("resnet18", class_token="own")


def test_a_size_that_the_network_cannot_take_is_an_input_error() -> None:
    encoder = create("beit_base_patch16_224", depth=1).eval()
    with pytest.raises(InputError, match="beit_base_patch16_224 cannot encode 128x64 pixels"):
        encoder(torch.rand(1, 3, 128, 64))
    with pytest.raises(InputError, match=r"resolution 100 .* use 96 or 112"):
        encoder(torch.rand(1, 3, 100, 224))
    assert create("beit_base_patch16_224", depth=1, img_size=64).resolution == 64


def test_a_network_that_looks_for_its_classifier_in_vain_is_made() -> None:
    assert create("efficientvit_m0").cls_dim == 192


def test_a_grid_that_is_not_one_token_a_patch_is_refused() -> None:
    with pytest.raises(InputError, match="7x7 patch tokens of 288x288 pixels, not 9x9"):
        create("inception_v3")(torch.rand(2, 3, 288, 288))


def test_an_unfit_architecture_is_an_input_error() -> None:
    encoder = create("crossvit_9_240")
    with pytest.raises(InputError, match="cannot be an encoder"):
        encoder.tokens(torch.rand(1, 3, 240, 240))


@pytest.mark.parametrize("option", ["checkpoint_path", "pretrained_cfg", "features_only"])
def test_weights_come_in_by_one_door(option: str) -> None:
    with pytest.raises(InputError, match=f"{option} cannot be set here"):
        create("resnet18", **{option: "x"})


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_file(tmp_path: Path, suffix: str) -> None:
    weights = timm.create_model("vit_tiny_patch16_224", depth=1, num_classes=10).state_dict()
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save({"model": weights}, path)
    else:
        save_file(weights, path)
    encoder = create("vit_tiny_patch16_224", depth=1, pretrained=path)
    assert not encoder.training
    assert "state_dict" not in encoder.trunk.pretrained_cfg  # type: ignore[union-attr, operator]
    for key, value in encoder.trunk.state_dict().items():  # type: ignore[union-attr, operator]
        assert torch.equal(value, weights[key])


def test_released_eupe_file_is_understood(tmp_path: Path) -> None:
    """The official names, with the mask token, key bias and heads that timm's class lacks."""
    encoder = create("eupe_vit_t", depth=1)
    ours = dict(encoder.trunk.state_dict())  # type: ignore[union-attr, operator]
    official = {}
    for key, value in ours.items():
        key = key.replace("reg_token", "storage_tokens")
        key = key.replace("gamma_1", "ls1.gamma").replace("gamma_2", "ls2.gamma")
        if not key.endswith(("q_bias", "v_bias", "k_bias")):
            official[key] = torch.randn_like(value)
    official["blocks.0.attn.qkv.bias"] = torch.randn(3 * 192)
    official["mask_token"] = torch.randn(1, 192)
    official["projectors.0.weight"] = torch.randn(4, 192)
    torch.save(official, tmp_path / "EUPE-ViT-T.pt")
    loaded = create("eupe_vit_t", depth=1, pretrained=tmp_path / "EUPE-ViT-T.pt").trunk
    assert torch.equal(loaded.reg_token, official["storage_tokens"])  # type: ignore[union-attr, arg-type]
    bias = loaded.blocks[0].attn.v_bias  # type: ignore[union-attr, index]
    assert torch.equal(bias, official["blocks.0.attn.qkv.bias"][384:])


def test_weights_that_cannot_be_had_are_an_input_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="cannot read weights from"):
        create("resnet18", pretrained=tmp_path / "none.pt")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "code.pt")  # a pickle that needs classes
    with pytest.raises(InputError, match="holds tensors only"):
        create("resnet18", pretrained=tmp_path / "code.pt")
    torch.save({"fc.weight": torch.zeros(1)}, tmp_path / "head.pt")
    with pytest.raises(InputError, match=r"head\.pt cannot be loaded \(it lacks 100 tensors"):
        create("resnet18", pretrained=tmp_path / "head.pt")
    torch.save({}, tmp_path / "empty.pt")
    with pytest.raises(InputError, match=r"empty\.pt holds no weights"):
        create("resnet18", pretrained=tmp_path / "empty.pt")
    weights = timm.create_model("resnet18").state_dict()
    del weights["layer1.0.conv1.weight"]
    torch.save(weights, tmp_path / "part.pt")
    with pytest.raises(InputError, match=r"resnet18: the weights file .*part\.pt cannot be loaded"):
        create("resnet18", pretrained=tmp_path / "part.pt")

    make = timm.create_model

    def offline(name: str, pretrained: bool = False, **args: object) -> torch.nn.Module:
        if pretrained:
            raise OSError("cannot reach the hub\nsecond line")
        return make(name, **args)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(InputError) as caught:
        create("eupe_vit_t", pretrained=True)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("eupe_vit_t: its published weights cannot be loaded (cannot reach")
    assert "pretrained=False" in message


# timm loads the first three leniently on purpose.
LENIENT = ["dla34", "inception_v3", "vit_base_patch16_siglip_gap_224", "test_resnet", "test_vit2"]


@pytest.mark.parametrize("name", LENIENT)
def test_weights_of_another_network_are_refused(name: str, tmp_path: Path) -> None:
    save_file(timm.create_model("resnet10t").state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=rf"{name}.*other\.safetensors cannot be loaded"):
        create(name, pretrained=tmp_path / "other.safetensors")


@pytest.mark.parametrize("name", [*LENIENT, "vit_base_patch16_siglip_224"])
def test_a_file_that_lacks_or_adds_a_tensor_is_refused(name: str, tmp_path: Path) -> None:
    args = {"depth": 2} if "siglip" in name else {}
    weights = timm.create_model(name, **args).state_dict()
    path = tmp_path / "weights.safetensors"
    save_file(weights, path)  # with its classifier, which is cut off
    trunk: Any = create(name, pretrained=path, **args).trunk
    assert all(torch.equal(value, weights[key]) for key, value in trunk.state_dict().items())
    last = [key for key, _ in trunk.named_parameters()][-1]
    save_file({key: value for key, value in weights.items() if key != last}, path)
    with pytest.raises(InputError, match=f"lacks 1 tensor, such as {last}"):
        create(name, pretrained=path, **args)
    save_file({**weights, "blocks.99.weight": torch.zeros(1)}, path)
    with pytest.raises(InputError, match=r"1 tensor, such as blocks\.99\.weight, that the"):
        create(name, pretrained=path, **args)


def test_published_weights_never_leave_a_layer_random(monkeypatch: pytest.MonkeyPatch) -> None:
    """timm cuts the classifier off leniently, and would forgive a wrong depth with it."""
    published = timm.create_model("test_vit").state_dict()
    monkeypatch.setattr(
        "timm.models._builder.load_state_dict_from_hf", lambda *_, **__: dict(published)
    )
    depth = len(create("test_vit", pretrained=True).trunk.blocks)  # type: ignore[union-attr, arg-type]
    for other in (depth - 1, depth + 1):
        with pytest.raises(InputError, match="its published weights cannot be loaded"):
            create("test_vit", pretrained=True, depth=other)


def test_can_be_made_on_the_meta_device() -> None:
    with on_meta():
        encoder = TimmEncoder("swin_tiny_patch4_window7_224")
    assert all(parameter.is_meta for parameter in encoder.parameters())


def test_native_side_is_one_that_the_patches_divide() -> None:
    encoder = create("resnet10t")  # trained at 176 px, stride 32
    assert (encoder.resolution, encoder.patch_size) == (192, 32)
