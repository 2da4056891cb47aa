"""The proof sees what a user would meet, and leaves the encoder as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from openeupe.deploy.parity import Proof
from openeupe.deploy.targets import Precision, Session, Target
from openeupe.encoders import Encoder, Tokens

from .conftest import small


class EncoderTarget(Target):
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
    parity = proof.check(EncoderTarget(encoder, strides), Path(), "fp32", "float32")
    assert parity.photos == count
    assert parity.passed == (strides or count == 1)  # one photo is given as it lies
