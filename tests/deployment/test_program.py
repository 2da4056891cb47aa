"""Each fold is exact to rounding, and a dynamic program is right at sizes it was not traced at."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from openeupe.deployment import fold
from openeupe.deployment.program import PixelProgram, parse_sizes, trace
from openeupe.encoders import Encoder, create
from openeupe.errors import InputError

from .conftest import SMALL, small


def near(got: torch.Tensor, expected: torch.Tensor, error: float = 1e-5) -> bool:
    return bool((got - expected).abs().max() <= error * expected.abs().max())


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("pixels", ["float32", "uint8"])
def test_raw_pixels_give_the_encoders_tokens(name: str, pixels: str) -> None:
    encoder = small(name)
    images = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8)
    program = PixelProgram(encoder, pixels, dynamic=False)  # type: ignore[arg-type]
    given = images if pixels == "uint8" else images.float() / 255
    with torch.no_grad():
        cls, patches = program(given)
        expected = encoder(images.float() / 255)
    assert near(cls, expected.cls)
    assert near(patches, expected.patches)


def test_layer_scales_are_gone_and_the_encoder_is_untouched(
    vit: Encoder, convnext: Encoder
) -> None:
    assert fold.fold_layer_scales(copy.deepcopy(vit)) == 2
    folded = copy.deepcopy(convnext)
    before = convnext.state_dict()["trunk.stages.0.blocks.0.mlp.fc2.weight"].clone()
    assert fold.fold_layer_scales(folded) == 4
    assert not any("gamma" in key for key, _ in folded.named_parameters())
    PixelProgram(convnext, "float32", dynamic=False)
    assert torch.equal(before, convnext.state_dict()["trunk.stages.0.blocks.0.mlp.fc2.weight"])


def test_normalization_goes_into_the_first_convolution(vit: Encoder) -> None:
    program = PixelProgram(vit, "float32", dynamic=False)
    assert program.shift is None
    assert program.spread is None
    # A convolution that pads keeps the subtraction: its zeros stand for the mean colour.
    padded = PixelProgram(small("resnet10t"), "float32", dynamic=False)
    assert padded.shift is not None
    assert padded.spread is None
    # Without a convolution both stay.
    assert PixelProgram(create("raw_pixels"), "float32", dynamic=False).spread is not None


def test_weights_made_on_the_fly_are_not_folded() -> None:
    class Standardized(nn.Conv2d):
        pass

    encoder = small("resnet10t")
    layer = fold.pixel_layer(encoder)
    assert layer is not None
    layer.__class__ = Standardized
    assert fold.pixel_layer(encoder) is None


def test_position_constants_are_folded_at_a_fixed_size(vit: Encoder) -> None:
    program = trace(vit, (64, 96))
    made = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert not made & {"aten.sin.default", "aten.cos.default", "aten.arange.default"}
    free = trace(vit, None)
    made = {str(node.target) for node in free.graph.nodes if node.op == "call_function"}
    assert "aten.sin.default" in made


@pytest.mark.parametrize("name", ["eupe_vit_t", "eupe_convnext_t"])
def test_a_dynamic_program_is_right_at_other_sizes(name: str) -> None:
    """timm's rotary embedding would be frozen at the traced grid: cosine 0.7, no error."""
    encoder = small(name)
    program = trace(encoder, None).module()
    for height, width in [(64, 64), (96, 160), (64, 288)]:
        images = torch.rand(3, 3, height, width)
        with torch.no_grad():
            cls, patches = program(images)
            expected = encoder(images)
        assert near(cls, expected.cls)
        assert near(patches, expected.patches)


def test_sizes_are_read_height_first() -> None:
    assert parse_sizes("256, 512x384,256") == [(256, 256), (512, 384)]
    for text in ("256px", "", "0", "1x2x3", "-4"):
        with pytest.raises(InputError, match="write it as"):
            parse_sizes(text)
