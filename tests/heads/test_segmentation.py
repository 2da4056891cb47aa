from __future__ import annotations

import torch
from torch.nn import functional as F

from openeupe.heads.segmentation import best_classes, upsampled_loss


def test_classes_that_cannot_win_may_be_left_out() -> None:
    generator = torch.Generator().manual_seed(0)
    for size in ((3, 4), (1, 1), (7, 2)):
        for _ in range(30):
            logits = torch.randn(12, *size, generator=generator) * 3
            for target in ((16 * size[0], 13 * size[1]), size, (size[0] + 1, 5)):
                whole = F.interpolate(logits[None], target, mode="bilinear")[0].argmax(0)
                assert torch.equal(best_classes(logits, target), whole)


def test_ignored_pixels_have_no_loss() -> None:
    logits = torch.randn(2, 3, 4, 4)
    labels = torch.randint(0, 3, (2, 8, 8)).to(torch.uint8)
    labels[0] = 255
    fine = F.interpolate(logits, (8, 8), mode="bilinear")
    expected = F.cross_entropy(fine[1:], labels[1:].long())
    torch.testing.assert_close(upsampled_loss(logits, labels), expected)
    assert upsampled_loss(logits, torch.full((2, 8, 8), 255, dtype=torch.uint8)) == 0
    # The released code divides by all pixels, those without a label too.
    half = upsampled_loss(logits, labels, over_all=True)
    torch.testing.assert_close(half, expected / 2)
