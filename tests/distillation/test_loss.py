"""The loss against the formulas of the paper, written out by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from openeupe.distillation.loss import LossConfig, match_grids, token_losses
from openeupe.encoders import Tokens


def by_hand(predicted: Tokens, target: Tokens) -> tuple[float, float]:
    cls = 0.0
    for a, b in zip(predicted.cls, target.cls, strict=True):
        cls += 1 - float(a @ b / a.norm() / b.norm())
    cosine = l1 = 0.0
    a_rows = predicted.patches.permute(0, 2, 3, 1).reshape(-1, predicted.patches.shape[1])
    b_rows = target.patches.permute(0, 2, 3, 1).reshape(-1, target.patches.shape[1])
    for a, b in zip(a_rows, b_rows, strict=True):
        cosine += 1 - float(a @ b / a.norm() / b.norm())
        d = (a - b).abs()
        l1 += float(torch.where(d < 1, 0.5 * d**2, d - 0.5).mean())
    n = len(a_rows)
    return cls / len(predicted.cls), 0.9 * cosine / n + 0.1 * l1 / n


def tokens(seed: int, grid: int = 3) -> Tokens:
    g = torch.Generator().manual_seed(seed)
    return Tokens(torch.randn(4, 6, generator=g), 2 * torch.randn(4, 5, grid, grid, generator=g))


def test_equals_equations_5_and_6() -> None:
    loss = token_losses(tokens(0), tokens(1), LossConfig())
    cls, patches = by_hand(tokens(0), tokens(1))
    torch.testing.assert_close(float(loss.cls), cls, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(float(loss.patches), patches, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "config",
    [
        LossConfig(),
        LossConfig(cosine=0.3, smooth_l1=2, smooth_l1_transition=0.4),
        LossConfig(smooth_l1=0),
    ],
)
def test_gradient_of_the_patches_is_that_of_pytorchs_losses(config: LossConfig) -> None:
    student = (3 * tokens(0).patches).requires_grad_()
    target = tokens(1).patches
    expected = config.cosine * (1 - F.cosine_similarity(student, target, dim=1).mean())
    expected = expected + config.smooth_l1 * F.smooth_l1_loss(
        student, target, beta=config.smooth_l1_transition
    )
    loss = token_losses(Tokens(tokens(0).cls, student), Tokens(tokens(1).cls, target), config)
    torch.testing.assert_close(loss.patches, expected)
    mine, theirs = (torch.autograd.grad(3 * each, student)[0] for each in (loss.patches, expected))
    torch.testing.assert_close(mine, theirs)


def test_is_zero_for_a_perfect_student() -> None:
    loss = token_losses(tokens(0), tokens(0), LossConfig())
    assert abs(float(loss.cls)) < 1e-6
    assert abs(float(loss.patches)) < 1e-6


@pytest.mark.parametrize(("grid", "larger"), [(2, 5), (3, 16), (11, 15)])
def test_the_smaller_grid_is_upsampled_bicubically_whichever_it_is(grid: int, larger: int) -> None:
    small, large = tokens(0, grid), tokens(1, larger)
    up = F.interpolate(small.patches, size=large.patches.shape[2:], mode="bicubic")
    expected = token_losses(Tokens(small.cls, up), large, LossConfig()).patches
    torch.testing.assert_close(token_losses(small, large, LossConfig()).patches, expected)
    torch.testing.assert_close(
        token_losses(large, small, LossConfig()).patches,
        token_losses(large, Tokens(small.cls, up), LossConfig()).patches,
    )


def test_grids_match_at_the_larger_of_each_side() -> None:
    a, b = match_grids(torch.randn(1, 2, 2, 6), torch.randn(1, 2, 4, 3))
    assert a.shape[-2:] == b.shape[-2:] == (4, 6)


def test_is_computed_in_float32_under_autocast() -> None:
    half = Tokens(*(t.bfloat16() for t in tokens(0)))
    with torch.autocast("cpu", torch.bfloat16):
        loss = token_losses(half, tokens(1), LossConfig())
    assert loss.cls.dtype == loss.patches.dtype == torch.float32
