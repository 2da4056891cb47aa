"""The proof sees what a user would meet, and leaves the encoder as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from openeupe.deployment import fold
from openeupe.deployment import latency as measuring
from openeupe.deployment.parity import Proof
from openeupe.deployment.program import PixelProgram
from openeupe.encoders import Encoder, Tokens
from openeupe.encoders.engines import Engine, Precision, Session

from .conftest import small
from .exporting import export


class EncoderEngine(Engine):
    """An engine that is the encoder itself; with `strides=False` one that reads memory in order."""

    name = "test"

    def __init__(self, encoder: Encoder, strides: bool) -> None:
        self.encoder, self.strides = encoder, strides

    def open(self, path: Path, precision: Precision, threads: int, batch: int | None) -> Session:
        def run(images: Tensor) -> Tokens:
            if not self.strides:
                images = images.as_strided(images.shape, torch.empty(images.shape).stride())
            with torch.no_grad():
                return Tokens(*self.encoder(images))

        return run


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("strides", [True, False])
def test_parity_finds_an_engine_that_ignores_strides(count: int, strides: bool) -> None:
    encoder = small("resnet10t")
    proof = Proof(encoder, torch.randint(0, 256, (count, 3, 32, 64), dtype=torch.uint8))
    parity = proof.check(EncoderEngine(encoder, strides), Path(), "fp32", "float32")
    assert parity.images == count
    assert parity.passed == (strides or count == 1)  # one image is given as it lies


def training(encoder: Encoder) -> Encoder:
    """The encoder as a user has it in the middle of a training: its batch norms learn."""
    encoder.train()
    encoder.trunk.bn1.eval()  # type: ignore[union-attr,operator]
    return encoder


State = tuple[dict[str, Tensor], list[bool], Tensor]


def state(encoder: Encoder) -> State:
    modes = [module.training for module in encoder.modules()]
    return {k: v.clone() for k, v in encoder.state_dict().items()}, modes, torch.get_rng_state()


def assert_untouched(encoder: Encoder, before: State) -> None:
    after = state(encoder)
    assert all(torch.equal(before[0][key], after[0][key]) for key in before[0])
    assert before[1] == after[1]
    assert torch.equal(before[2], after[2])


def test_a_proof_takes_the_tokens_of_eval_mode_and_changes_nothing() -> None:
    encoder = small("resnet10t")
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        expected = encoder(images[:1].float() / 255)
    before = state(training(encoder))
    proof = Proof(encoder, images)
    assert_untouched(encoder, before)
    assert torch.allclose(proof.expected.cls[:1], expected.cls, atol=1e-6)
    # A file must give the float32 tokens, whatever the encoder is kept in.
    assert Proof(encoder.bfloat16(), images).expected.cls.dtype == torch.float32


def test_nothing_of_deploy_changes_the_encoder_that_it_is_given(tmp_path: Path) -> None:
    encoder = small("resnet10t")
    before = state(training(encoder))
    measuring.gmacs(encoder, (32, 32))
    measuring.eager(encoder, "")
    PixelProgram(encoder, "float32", dynamic=False)
    fold.pixel_layer(encoder)
    export(encoder, tmp_path / "out", target="onnx", resolution=[(32, 32)])
    assert_untouched(encoder, before)
