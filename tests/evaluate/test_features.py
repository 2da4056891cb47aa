from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

from openeupe.data import FolderSource
from openeupe.encoders import create
from openeupe.evaluate.features import center_views, encode


def test_views_of_what_can_be_read(tmp_path: Path) -> None:
    for i in range(3):
        Image.new("RGB", (40, 30), (i, 0, 0)).save(tmp_path / f"{i}.png")
    (tmp_path / "1.png").write_bytes(b"broken")
    views, kept = center_views(FolderSource(tmp_path), range(3), 16)
    assert views.shape == (2, 3, 16, 16)
    assert kept == [0, 2]
    assert views[:, 0, 0, 0].tolist() == [0, 2]


def test_tokens_do_not_depend_on_the_batch_and_modes_come_back() -> None:
    encoder = create("test_resnet").train()
    views = torch.randint(0, 256, (5, 3, 64, 64)).byte()
    one, many = encode(encoder, views, batch_size=1), encode(encoder, views, batch_size=5)
    torch.testing.assert_close(one.cls, many.cls, rtol=1e-4, atol=1e-5)
    assert encoder.training
    assert not one.patches.requires_grad
    smaller = encode(encoder, views, side=32)
    assert smaller.patches.shape[-1] * 2 == one.patches.shape[-1]
