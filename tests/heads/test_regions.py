from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from openeupe.heads.regions import RegionHead, RegionHeadSettings, cells_per_side


def test_cells_are_laid_out_as_the_patch() -> None:
    """Output `c * row + column` of a patch is the cell at that row and column."""
    head = RegionHead(RegionHeadSettings(width=3, cells=4)).eval()
    torch.nn.init.zeros_(head.linear.weight)
    with torch.no_grad():
        head.linear.bias.copy_(torch.arange(16.0))  # type: ignore[union-attr]
    found = head.pixels(torch.zeros(1, 3, 2, 2), (8, 8))[0]
    assert found[:4, :4].tolist() == torch.arange(16.0).view(4, 4).tolist()
    assert found[4:, 4:].tolist() == found[:4, :4].tolist()
    assert [cells_per_side(p, 4) for p in (16, 14, 32, 2)] == [4, 4, 8, 1]


def test_yes_and_no_weigh_the_same_if_balanced() -> None:
    head = RegionHead(RegionHeadSettings(width=2, cells=2)).eval()
    with torch.no_grad():
        head.linear.bias.copy_(torch.tensor([2.0, -1.0, 0.5, 0.0]))  # type: ignore[union-attr]
    tokens = torch.zeros(1, 2, 1, 2)
    wanted, weight = torch.zeros(1, 2, 4), torch.ones(1, 2, 4)
    wanted[0, 0, 0], weight[0, 1, 3] = 1, 0
    each = F.binary_cross_entropy_with_logits(head(tokens), wanted, reduction="none")
    plain = (each * weight).sum() / weight.sum()
    assert head.loss(tokens, wanted, weight).item() == pytest.approx(plain.item())
    yes = each[wanted == 1].mean()
    no = each[(wanted == 0) & (weight == 1)].mean()
    balanced = head.loss(tokens, wanted, weight, balanced=True)
    assert balanced.item() == pytest.approx((yes + no).item() / 2)
    assert head.loss(tokens, wanted, weight * 0) == 0
