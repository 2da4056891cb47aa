from __future__ import annotations

from pathlib import Path

import torch

from openeupe.encoders import create, load, save


def test_tokens_are_the_pixels_themselves() -> None:
    images = torch.rand(2, 3, 48, 64)
    tokens = create("raw_pixels")(images)
    assert tokens.cls.shape == (2, 768)
    assert tokens.patches.shape == (2, 192, 3, 4)
    corner = 2 * images[1, :, 16:32, 48:64] - 1  # the patch of row 1, column 3
    halved = corner.unflatten(1, (8, 2)).unflatten(3, (8, 2)).mean((2, 4))
    torch.testing.assert_close(tokens.patches[1, :, 1, 3], halved.flatten())
    cells = (2 * images[0] - 1).unflatten(1, (16, 3)).unflatten(3, (16, 4)).mean((2, 4))
    torch.testing.assert_close(tokens.cls[0], cells.flatten())


def test_there_is_nothing_to_train_but_it_is_an_encoder(tmp_path: Path) -> None:
    encoder = load("raw_pixels")
    assert not list(encoder.parameters())
    save(encoder, tmp_path / "pixels")
    images = torch.rand(1, 3, 32, 32)
    again = load(tmp_path / "pixels")
    torch.testing.assert_close(again(images).cls, encoder(images).cls)
