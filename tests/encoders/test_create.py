"""Names become encoders, and encoders can be rebuilt from their names."""

from __future__ import annotations

import pytest

from openeupe.encoders import create, names
from openeupe.encoders.meta import on_meta
from openeupe.errors import InputError


def test_own_names() -> None:
    own = names()
    assert len(own) == len(set(own)) == 16
    assert {"eupe_vit_t", "eupe_proxy", "pe_core_g", "hed"} <= set(own)


@pytest.mark.parametrize("name", [*names(), "resnet18", "vit_tiny_patch16_224.augreg_in21k"])
def test_name_and_args_rebuild_the_architecture(name: str) -> None:
    with on_meta():
        encoder = create(name)
        again = create(encoder.name, **encoder.args)
    assert encoder.name == name
    shapes = {key: value.shape for key, value in encoder.state_dict().items()}
    assert shapes == {key: value.shape for key, value in again.state_dict().items()}
    assert (encoder.cls_dim, encoder.patch_dim) == (again.cls_dim, again.patch_dim)


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("eupe_vit_x", {}, "no encoder is called 'eupe_vit_x': did you mean eupe_vit_t"),
        ("qqqqqq", {}, "no encoder is called 'qqqqqq': use eupe_vit_t"),
        ("resnet18", {"foo": 1}, "resnet18 cannot be made .*'foo'"),
        ("hed", {"depth": 3}, "hed cannot be made with depth=3"),
        ("hed", {"patches": "conv6"}, "hed has no patches 'conv6': use one of conv5, conv4"),
        ("eupe_proxy", {"embed_dim": 3}, "eupe_proxy cannot be made with embed_dim=3"),
        ("hed", {"pretrained": "file.pt"}, "hed: pretrained must be true or false"),
    ],
)
def test_mistakes_are_one_line(name: str, args: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        create(name, **args)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
