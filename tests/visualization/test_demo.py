from __future__ import annotations

import sys

import pytest
import torch

from openeupe.encoders import create
from openeupe.errors import InputError
from openeupe.visualization.demo import build, colours, maps


def test_pictures_have_the_images_shape_and_say_what_they_show() -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = {name: torch.randn(8, 4, 6, generator=generator) for name in ("a", "b")}
    for shown in (colours(tokens, (300, 200)), maps(tokens, (0.5, 0.5), (300, 200))):
        assert [image.size for image, _ in shown] == [(512, 341)] * 2
        assert [caption.split(":")[0] for _, caption in shown] == ["a", "b"]
    (image, caption), _ = maps(tokens, (0.99, 0.99), (300, 200))
    assert caption.endswith("to 1.00")
    assert image.getpixel((511, 340)) == (
        253,
        231,
        37,
    )  # the patch itself: viridis at its brightest


def test_without_gradio_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(InputError, match=r"pip install 'openeupe\[demo\]'"):
        build({"raw_pixels": create("raw_pixels")}, 64)


def test_the_page_can_be_built() -> None:
    pytest.importorskip("gradio", reason="needs the extra demo: pip install 'openeupe[demo]'")
    assert build({"raw_pixels": create("raw_pixels")}, 64).fns
