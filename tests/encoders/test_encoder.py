"""The mode of each part of an encoder comes back after it was evaluated."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from PIL import Image

from openeupe.encoders import Encoder, create
from openeupe.encoders.reopened import sample
from openeupe.evaluation.features import frozen
from openeupe.visualization.images import named_image, patch_tokens


def modes(encoder: Encoder) -> list[bool]:
    return [module.training for module in encoder.modules()]


def mixed() -> Encoder:
    """In training, but for one frozen part."""
    encoder = create("test_resnet").train()
    encoder.trunk.layer1.eval()  # type: ignore[union-attr, operator]
    return encoder


def looked_at(encoder: Encoder) -> None:
    patch_tokens(encoder, named_image(Image.new("RGB", (64, 64)), "grey", 64))


def frozen_once(encoder: Encoder) -> None:
    with frozen(encoder):
        assert not any(modes(encoder))


@pytest.mark.parametrize("use", [looked_at, sample, frozen_once])
def test_parts_that_were_in_other_modes_stay_so(use: Callable[[Encoder], None]) -> None:
    encoder = mixed()
    before = modes(encoder)
    assert len(set(before)) == 2
    use(encoder)
    assert modes(encoder) == before


@pytest.mark.parametrize("use", [looked_at, sample])
def test_an_error_on_the_way_leaves_no_mode_behind(use: Callable[[Encoder], None]) -> None:
    encoder = mixed()
    before = modes(encoder)

    def fails(*_: object) -> None:
        raise RuntimeError("no memory")

    encoder.register_forward_pre_hook(fails)
    with pytest.raises(RuntimeError, match="no memory"):
        use(encoder)
    assert modes(encoder) == before
