"""Networks on the meta device are those of the processor, but for their values."""

from __future__ import annotations

import pytest
import torch

from openeupe.encoders import create
from openeupe.encoders.meta import on_meta


@pytest.mark.parametrize("name", ["test_vit", "test_convnext", "test_efficientnet", "raw_pixels"])
def test_shapes_and_dtypes_are_those_of_a_real_network(name: str) -> None:
    before = torch.get_rng_state()
    with on_meta():
        encoder = create(name)
    assert torch.equal(before, torch.get_rng_state())
    made, real = encoder.state_dict(), create(name).state_dict()
    assert all(tensor.is_meta for tensor in made.values())
    assert {k: (t.shape, t.dtype) for k, t in made.items()} == {
        k: (t.shape, t.dtype) for k, t in real.items()
    }


def test_what_is_not_on_the_meta_device_is_filled() -> None:
    with on_meta():
        assert torch.zeros(2, device="cpu").add_(1).tolist() == [1, 1]
        assert torch.zeros(2).add_(1).is_meta
