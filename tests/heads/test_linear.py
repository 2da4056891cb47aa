from __future__ import annotations

import torch

from openeupe.heads.linear import HeadSettings, LinearHead


def test_the_head_is_the_papers() -> None:
    torch.manual_seed(0)
    head = LinearHead(HeadSettings(width=512, dropout=0.1), 40)
    assert abs(head.linear.weight.std().item() - 0.01) < 5e-4
    assert not head.linear.bias.any()
    assert not head.eval()(torch.zeros(2, 512, 3, 5)).any()
    assert [type(m).__name__ for m in head.children()] == ["Dropout2d", "BatchNorm2d", "Conv2d"]
