"""Encoders that lie inside the package go by their folder's name; what is stored in half precision
is float32 once loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import openeupe
from openeupe import encoders
from openeupe.encoders import sources
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
    monkeypatch.setattr(sources, "_CARRIED", tmp_path)
    monkeypatch.chdir(tmp_path.parent)
    loaded = openeupe.load("stand-in")
    assert encoders.is_stored("stand-in")
    assert encoders.describe("stand-in")[0] == "test_efficientnet"
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        first, second = made(images).patches, loaded(images).patches
    assert torch.cosine_similarity(first.flatten(1), second.flatten(1)).min() > 0.9999
