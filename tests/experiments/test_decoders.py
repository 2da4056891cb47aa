"""HED and CRAFT do what their authors trained them for: known answers on real photos."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from experiments.decoders import Craft, Hed


@torch.inference_mode()
def test_hed_draws_the_outlines_of_coins(photo: Callable[[str], Tensor]) -> None:
    hed = Hed()
    images = photo("coins")
    edges = hed(images)
    assert edges.shape == (1, 1, *images.shape[-2:])
    # The big coin of row 3, along its vertical diameter: rim, dark inside, rim; dark table.
    across = edges[0, 0, :, 348]
    assert across[150:162].max() > 0.8
    assert across[178:198].max() < 0.2
    assert across[210:222].max() > 0.75
    assert edges[0, 0, 84:92, 56:76].max() < 0.2
    assert 0.05 < (edges > 0.5).float().mean() < 0.4
    flat = hed(torch.full((1, 3, 64, 64), 0.5))
    assert flat[..., 16:48, 16:48].max() < 0.3


@torch.inference_mode()
def test_hed_sees_colours_in_the_right_order(photo: Callable[[str], Tensor]) -> None:
    hed = Hed()
    red, _, blue = hed.encoder.mean.flatten()
    assert red > blue  # Caffe's red is the brightest
    images = photo("coffee")
    edges, swapped = hed(images), hed(images.flip(1))
    assert (edges - swapped).abs().mean() > 0.005


@torch.inference_mode()
def test_craft_finds_characters_on_a_page_only(photo: Callable[[str], Tensor]) -> None:
    craft = Craft()
    images = photo("page")
    heat = craft(images)
    assert heat.shape == (1, 2, images.shape[-2] // 2, images.shape[-1] // 2)
    assert heat[:, 0].max() > 0.8
    assert 0.05 < (heat[:, 0] > 0.4).float().mean() < 0.3
    assert craft(photo("coffee"))[:, 0].max() < 0.3
