"""Students, proxy and teachers: parameter counts against the paper, shapes at reduced depth."""

from __future__ import annotations

import pytest
import torch

from openeupe.encoders import Encoder, create
from openeupe.encoders.meta import on_meta
from openeupe.errors import InputError


def _parameters(encoder: Encoder) -> int:
    return sum(parameter.numel() for parameter in encoder.parameters())


# Trainable parameters as the official code counts them. It holds a mask token and, per block, a
# key bias (masked to zero) that timm's class leaves out: 13 times the width in a transformer.
@pytest.mark.parametrize(
    ("name", "official", "unused"),
    [
        ("eupe_vit_t", 5_492_160, 13 * 192),
        ("eupe_vit_s", 21_601_152, 13 * 384),
        ("eupe_vit_b", 85_669_632, 13 * 768),
        ("eupe_convnext_t", 27_820_128, 0),
        ("eupe_convnext_s", 49_454_688, 0),
        ("eupe_convnext_b", 87_566_464, 0),
    ],
)
def test_students_have_the_official_size(name: str, official: int, unused: int) -> None:
    with on_meta():
        encoder = create(name)
    assert _parameters(encoder) == official - unused
    assert encoder.resolution == 256
    assert encoder.args == {}


@pytest.mark.parametrize(
    ("name", "billions", "cls_dim", "patch_dim", "patch_size", "resolution"),
    [
        ("eupe_proxy", 1.851, 1536, 1536, 16, 256),
        ("pe_core_g", 1.882, 1280, 1536, 14, 448),
        ("pe_lang_g", 1.741, 1536, 1536, 14, 448),
        ("dinov3_h_plus", 0.841, 1280, 1280, 16, 256),
        ("siglip2_g", 1.164, 1536, 1536, 16, 384),
    ],
)
def test_proxy_and_teachers_have_the_stated_shape(
    name: str, billions: float, cls_dim: int, patch_dim: int, patch_size: int, resolution: int
) -> None:
    with on_meta():
        encoder = create(name)
    assert _parameters(encoder) / 1e9 == pytest.approx(billions, abs=5e-4)
    assert (encoder.cls_dim, encoder.patch_dim) == (cls_dim, patch_dim)
    assert (encoder.patch_size, encoder.resolution) == (patch_size, resolution)


@pytest.mark.parametrize(
    ("name", "mean"),
    [("pe_core_g", 0.5), ("pe_lang_g", 0.5), ("siglip2_g", 0.5), ("dinov3_h_plus", 0.485)],
)
def test_teachers_keep_their_own_input_constants(name: str, mean: float) -> None:
    encoder = create(name, depth=1, embed_dim=96, num_heads=4)
    assert encoder.mean.flatten()[0].item() == pytest.approx(mean)


@pytest.mark.parametrize(
    "name", ["eupe_vit_t", "pe_core_g", "pe_lang_g", "dinov3_h_plus", "siglip2_g"]
)
def test_forward_at_two_sizes(name: str) -> None:
    encoder = create(name, depth=2, embed_dim=96, num_heads=8 if name == "pe_core_g" else 4).eval()
    patch = encoder.patch_size
    for h, w in [(4, 4), (5, 3)]:
        tokens = encoder(torch.rand(2, 3, h * patch, w * patch))
        assert tokens.cls.shape == (2, encoder.cls_dim)
        assert tokens.patches.shape == (2, encoder.patch_dim, h, w)


def test_proxy_settings_scale_it_down() -> None:
    encoder = create("eupe_proxy", width=96, depth=2, heads=3, registers=2).eval()
    assert encoder.trunk.blocks[0].mlp.fc1.out_features == 560  # type: ignore[union-attr, index]
    assert encoder.trunk.reg_token.shape == (1, 2, 96)  # type: ignore[union-attr]
    tokens = encoder(torch.rand(1, 3, 64, 32))
    assert tokens.patches.shape == (1, 96, 4, 2)
    again = create(encoder.name, **encoder.args)
    assert _parameters(again) == _parameters(encoder)
    assert create("eupe_proxy", width=96, depth=1, heads=3, mlp=100).args["mlp"] == 100


def test_proxy_width_must_fit_the_rotary_embedding() -> None:
    with pytest.raises(InputError, match="width 100 over 16 heads"):
        create("eupe_proxy", width=100)


def test_no_proxy_is_published() -> None:
    with pytest.raises(InputError, match="no proxy has been published"):
        create("eupe_proxy", pretrained=True)


def test_class_token_of_pe_core() -> None:
    small = {"depth": 1, "embed_dim": 96, "num_heads": 8}
    projected = create("pe_core_g", **small).eval()
    pooled = create("pe_core_g", class_token="pooled", **small).eval()
    missing = pooled.load_state_dict(projected.state_dict(), strict=False)
    assert not missing.missing_keys  # all but the projection
    images = torch.rand(2, 3, 56, 56)
    head = projected.trunk.head  # type: ignore[union-attr]
    torch.testing.assert_close(projected(images).cls, head(pooled(images).cls))  # type: ignore[operator]
    assert (projected.cls_dim, pooled.cls_dim) == (1280, 96)


def test_class_token_of_pe_lang_is_the_mean() -> None:
    encoder = create("pe_lang_g", depth=1, embed_dim=96, num_heads=4).eval()
    tokens = encoder(torch.rand(2, 3, 56, 56))
    torch.testing.assert_close(tokens.cls, tokens.patches.mean((2, 3)))


def test_rotary_rescaling_acts_in_training_only() -> None:
    encoder = create("eupe_vit_t", depth=2, init_values=1.0)
    images = torch.rand(1, 3, 64, 64)
    encoder.eval()
    assert torch.equal(encoder(images).patches, encoder(images).patches)
    encoder.train()
    assert not torch.equal(encoder(images).patches, encoder(images).patches)
