"""Encoders that lie inside the package go by their folder's name; what is stored in half precision
is float32 once loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import openeupe
from openeupe import encoders
from openeupe.encoders import resolver
from openeupe.errors import InputError


def test_a_carried_encoder_is_loaded_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = encoders.create("test_efficientnet").eval()
    weights = encoders.save(made, tmp_path / "stand-in") / "model.safetensors"
    save_file(
        {k: v.half() if v.is_floating_point() else v for k, v in load_file(weights).items()},
        weights,
    )
    with pytest.raises(InputError, match="no encoder is called 'stand-in'"):
        openeupe.load("stand-in")
    monkeypatch.setattr(resolver, "_CARRIED", tmp_path)
    monkeypatch.chdir(tmp_path.parent)
    loaded = openeupe.load("stand-in")
    assert encoders.resolve("stand-in").describe()[0] == "test_efficientnet"
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        first, second = made(images).patches, loaded(images).patches
    assert torch.cosine_similarity(first.flatten(1), second.flatten(1)).min() > 0.9999


def test_openeupe_mini_comes_with_the_package() -> None:
    folder = resolver._CARRIED / "openeupe-mini"
    assert sum(file.stat().st_size for file in folder.iterdir()) < 15e6
    mini, start = (
        openeupe.load(name) for name in ("openeupe-mini", "untrained:efficientnet_lite0")
    )
    assert sum(p.numel() for p in mini.parameters()) < 6e6
    assert mini.state_dict().keys() == start.state_dict().keys()
    with torch.no_grad():
        tokens = mini(torch.rand(1, 3, 128, 160))
    assert tokens.cls.shape == (1, 1280)
    assert tokens.patches.shape == (1, 472, 8, 10)
    assert tokens.patches.isfinite().all()
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "## Limits" in card
    assert "CC BY 4.0" in card


@pytest.mark.parametrize(
    ("name", "architecture"),
    [("test_efficientnet", "test_efficientnet"), ("openeupe-mini", "efficientnet_lite0")],
)
def test_a_folder_of_results_called_like_an_encoder_is_not_taken_for_it(
    name: str, architecture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()  # as `openeupe evaluate NAME --out NAME` leaves it
    assert encoders.resolve(name).describe()[0] == architecture
    with pytest.raises(InputError, match="holds no encoder"):
        encoders.load(tmp_path / name)
    encoders.save(encoders.create("test_vit"), tmp_path / name)
    assert encoders.resolve(name).describe()[0] == "test_vit"
