"""Small encoders with weights that matter, and a folder of photos."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from openeupe.encoders import Encoder, create

SMALL = {
    "eupe_vit_t": {"depth": 1},
    "eupe_convnext_t": {"depths": [1, 1, 1, 1], "dims": [16, 32, 64, 128]},
    "resnet10t": {"channels": [16, 16, 32, 32], "stem_width": 8},
}


def small(name: str) -> Encoder:
    """A shallow encoder whose layer scales are not near zero, as after training."""
    torch.manual_seed(0)
    encoder = create(name, **SMALL[name]).eval()
    for key, parameter in encoder.named_parameters():
        if "gamma" in key:
            parameter.data.uniform_(-0.5, 0.5)
    return encoder


@pytest.fixture(scope="session")
def vit() -> Encoder:
    return small("eupe_vit_t")


@pytest.fixture(scope="session")
def convnext() -> Encoder:
    return small("eupe_convnext_t")


@pytest.fixture(scope="session")
def photos() -> Path:
    """The registry's photos: real ones, as parity asks for."""
    from openeupe.data.photos import registry_photos

    return registry_photos()
