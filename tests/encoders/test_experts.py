"""The registry experts do what their authors trained them for: known answers on real photos."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor

from openeupe.encoders import create
from openeupe.encoders.dinov2_focus_weights import DINOV2_FOCUS
from openeupe.encoders.expert_weights import (
    CRAFT,
    EFFICIENTNET_LITE0,
    HED,
    MINILM,
    MINILM_TOKENIZER,
)
from openeupe.encoders.experts import EXPERTS, imagenet_classifier
from openeupe.encoders.meta import on_meta
from openeupe.errors import InputError


@torch.inference_mode()
def test_efficientnet_names_imagenet_photos(imagenet: tuple[Tensor, Tensor]) -> None:
    images, labels = imagenet
    classify = imagenet_classifier()
    encoder = create("efficientnet_lite0", pretrained=True)
    logits = classify(encoder(images).cls)
    assert (logits.argmax(1) == labels).sum() >= 17  # 18 of 20
    assert (logits.topk(5).indices == labels[:, None]).any(1).sum() >= 19
    # The answer comes from the weights, and from the right input constants.
    chance = classify(create("efficientnet_lite0").eval()(images).cls)
    assert (chance.argmax(1) == labels).sum() <= 2
    encoder.mean.copy_(torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
    encoder.std.copy_(torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))
    foreign = classify(encoder(images).cls)
    cross_entropy = torch.nn.functional.cross_entropy
    assert cross_entropy(logits, labels) < cross_entropy(foreign, labels) - 0.1


@pytest.mark.parametrize("name", ["efficientnet_lite0", "hed", "craft"])
def test_tokens_lie_on_a_grid_of_stride_16(name: str) -> None:
    encoder = create(name).eval()
    # 80 and 48 are no multiples of 32: the stride-32 stage must still be aligned.
    for height, width in [(64, 64), (80, 48)]:
        tokens = encoder(torch.rand(2, 3, height, width))
        assert tokens.cls.shape == (2, encoder.cls_dim)
        assert tokens.patches.shape == (2, encoder.patch_dim, height // 16, width // 16)


@pytest.mark.parametrize(
    ("name", "patches", "width"),
    [
        ("efficientnet_lite0", "16", 112),
        ("efficientnet_lite0", "32", 320),
        ("efficientnet_lite0", "16+32", 432),
        ("efficientnet_lite0", "8+16+32", 472),
        ("craft", "fc7", 1024),
        ("craft", "fc7+relu5", 1536),
    ],
)
def test_patches_can_be_chosen(name: str, patches: str, width: int) -> None:
    encoder = create(name, patches=patches).eval()
    assert encoder.patch_dim == encoder(torch.rand(1, 3, 32, 32)).patches.shape[1] == width
    assert encoder.args == {"patches": patches}


def test_unknown_patches_are_an_input_error() -> None:
    with pytest.raises(InputError, match=r"craft has no patches 'fc8': use one of fc7, fc7\+relu5"):
        create("craft", patches="fc8")


@pytest.mark.parametrize("name", EXPERTS)
def test_every_trainable_parameter_gets_a_gradient(name: str) -> None:
    encoder = create(name).train()
    tokens = encoder(torch.rand(2, 3, 4 * encoder.patch_size, 4 * encoder.patch_size))
    (tokens.cls.square().sum() + tokens.patches.square().sum()).backward()
    lost = [key for key, p in encoder.named_parameters() if p.requires_grad and p.grad is None]
    assert not lost


def test_a_pretrained_expert_is_frozen_in_mode_but_can_be_trained() -> None:
    encoder = create("efficientnet_lite0", pretrained=True)
    assert not encoder.training
    before = encoder.trunk.conv_stem.weight.clone()  # type: ignore[union-attr, operator]
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.1)
    encoder.train()(torch.rand(2, 3, 64, 64)).patches.mean().backward()
    optimizer.step()
    assert not torch.equal(before, encoder.trunk.conv_stem.weight)  # type: ignore[union-attr]


@pytest.mark.parametrize("name", EXPERTS)
def test_can_be_made_on_the_meta_device(name: str) -> None:
    with on_meta():
        encoder = create(name)
    assert all(parameter.is_meta for parameter in encoder.parameters())


def test_licences_are_stated() -> None:
    files = (CRAFT, DINOV2_FOCUS, EFFICIENTNET_LITE0, HED, MINILM, MINILM_TOKENIZER)
    assert all(len(file.sha256) == 64 and file.licence for file in files)


@torch.inference_mode()
def test_dinov2_focus_says_what_the_onnx_file_says() -> None:
    pytest.importorskip("onnx")
    encoder = create("dinov2_s_focus", pretrained=True)
    across = torch.linspace(0, 1, 224)
    wave = (12 * across).sin().square()
    channels = [across.expand(224, 224), across[:, None].expand(224, 224), wave.expand(224, 224)]
    cls, patches = encoder(torch.stack(channels)[None])
    # What onnxruntime 1.32 gave behind the file's last norm.
    expected = torch.tensor([-2.705951, 0.44082958, 0.9763373, -2.4440749])
    torch.testing.assert_close(cls[0, :4], expected, atol=2e-4, rtol=0)
    expected = torch.tensor([-2.4077203, 0.40469012, -0.60361946, -1.7348796])
    torch.testing.assert_close(patches[0, :4, 5, 7], expected, atol=2e-4, rtol=0)


def test_dinov2_focus_takes_other_sides() -> None:
    encoder = create("dinov2_s_focus")
    tokens = encoder(torch.rand(1, 3, 28, 70))
    assert tokens.patches.shape == (1, 384, 2, 5)


def test_dinov2_focus_without_onnx_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(InputError, match=r"pip install 'openeupe\[onnx\]'"):
        create("dinov2_s_focus", pretrained=True)
