from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.decomposition import PCA

from openeupe.look.pca import pca_rgb, save_pca_grid


def test_colours_are_the_first_three_components() -> None:
    patches = torch.randn(20, 5, 7, generator=torch.Generator().manual_seed(0))
    colours = pca_rgb(patches).reshape(-1, 3).double()
    scores = PCA(3).fit_transform(patches.flatten(1).T.double().numpy())
    for i in range(3):
        assert abs(abs(np.corrcoef(scores[:, i], colours[:, i])[0, 1]) - 1) < 1e-6
    assert float(colours.min()) == 0
    assert abs(float(colours.max()) - 1) < 1e-6


def test_same_tokens_give_the_same_picture_and_a_flat_image_no_error(tmp_path: Path) -> None:
    tokens = [torch.randn(8, 4, 4, generator=torch.Generator().manual_seed(i)) for i in range(2)]
    photos = [torch.zeros(3, 32, 32, dtype=torch.uint8)] * 2
    columns = {"a": tokens, "flat": [torch.ones(2, 4, 4)] * 2}
    for name in ("one.png", "two.png"):
        save_pca_grid(tmp_path / name, photos, columns)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    assert Image.open(tmp_path / "one.png").width > 300
