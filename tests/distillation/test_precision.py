"""Autocast's exception: depthwise convolutions stay float32 on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from openeupe.distillation.precision import autocast, depthwise_in_float32

_CPU = torch.device("cpu")


def gradients(conv: nn.Conv2d, images: Tensor, wanted: bool) -> tuple[Tensor, Tensor, torch.dtype]:
    images = images.clone().requires_grad_()
    with autocast("bf16", _CPU), depthwise_in_float32(wanted):
        made = conv(images)
    of_images, of_weight = torch.autograd.grad(made.float().square().sum(), (images, conv.weight))
    return of_images, of_weight, made.dtype


def test_depthwise_gradients_are_those_of_float32() -> None:
    torch.manual_seed(0)
    conv, images = nn.Conv2d(8, 8, 3, groups=8), torch.randn(2, 8, 9, 9)
    made = conv(images).bfloat16().float()  # its rounding is autocast's, and stays
    expected = torch.autograd.grad((2 * made.detach() * conv(images)).sum(), conv.weight)[0]
    _, of_weight, dtype = gradients(conv, images, wanted=True)
    _, rounded, _ = gradients(conv, images, wanted=False)
    assert dtype == torch.bfloat16
    error, error_before = (
        (each - expected).norm() / expected.norm() for each in (of_weight, rounded)
    )
    assert error < 0.3 * error_before


def test_other_convolutions_stay_in_bf16() -> None:
    conv, images = nn.Conv2d(8, 4, 3), torch.randn(2, 8, 9, 9)
    for ours, plain in zip(
        gradients(conv, images, True), gradients(conv, images, False), strict=True
    ):
        assert ours == plain if isinstance(ours, torch.dtype) else torch.equal(ours, plain)


def test_without_autocast_nothing_changes() -> None:
    conv, images = nn.Conv2d(8, 8, 3, groups=8), torch.randn(2, 8, 9, 9)
    with depthwise_in_float32(True):
        made = conv(images)
    assert made.dtype == torch.float32
    assert torch.equal(made, conv(images))
