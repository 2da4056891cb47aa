from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError

from openeupe.heads.depth import DepthHead, DepthHeadSettings, depth_from_bins, sig_loss


def test_bins_are_weighted_linearly() -> None:
    logits = torch.tensor([-5.0, 0.0, 2.0, 0.4]).view(1, 4, 1, 1)
    weights, bins = [0.1, 0.1, 2.1, 0.5], [0.001, 3.334, 6.667, 10.0]
    expected = sum(w * b for w, b in zip(weights, bins, strict=True)) / sum(weights)
    assert depth_from_bins(logits, 0.001, 10.0).item() == pytest.approx(expected, rel=1e-5)
    assert depth_from_bins(torch.zeros(1, 256, 2, 2), 0.001, 10.0).shape == (1, 2, 2)


def test_sig_loss_in_closed_form() -> None:
    truth = torch.tensor([1.0, 2.0, 4.0, 8.0], dtype=torch.float64)
    # A common factor: g is constant, its variance 0, and only the mean counts.
    predicted = 3 * (truth + 1e-3) - 1e-3
    assert sig_loss(predicted, truth).item() == pytest.approx(math.sqrt(0.15) * math.log(3))
    # g = +a, -a, +a, -a: mean 0, unbiased variance 4 a^2 / 3.
    signs = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64)
    swinging = (truth + 1e-3) * torch.exp(0.2 * signs) - 1e-3
    assert sig_loss(swinging, truth).item() == pytest.approx(0.2 * math.sqrt(4 / 3))
    assert sig_loss(swinging, truth, warming_up=True).item() == pytest.approx(0, abs=1e-9)
    assert sig_loss(predicted, truth, warming_up=True).item() == pytest.approx(
        math.sqrt(0.15) * math.log(3)
    )
    nothing = torch.zeros(0, requires_grad=True)
    sig_loss(nothing, torch.zeros(0)).backward()


def test_a_perfect_prediction_has_a_gradient() -> None:
    truth = torch.tensor([1.0, 2.0])
    for warming_up in (True, False):
        predicted = truth.clone().requires_grad_()
        sig_loss(predicted, truth, warming_up).backward()
        assert predicted.grad is not None
        assert torch.isfinite(predicted.grad).all()


def test_depths_outside_of_the_range_are_unknown() -> None:
    head = DepthHead(DepthHeadSettings(width=3, bins=4)).eval()
    tokens = torch.randn(1, 3, 2, 2)
    truth = torch.tensor([[1.0, 2.0], [0.0, 50.0]])[None]
    other = torch.tensor([[1.0, 2.0], [0.0, 0.0]])[None]
    assert head.loss(tokens, truth) == head.loss(tokens, other)
    with pytest.raises(ValidationError, match="min_depth must be below max_depth"):
        DepthHeadSettings(width=3, min_depth=2, max_depth=2)
