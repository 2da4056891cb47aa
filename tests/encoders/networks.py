"""Small networks whose every part acts, and whether two give equal tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

import openeupe
from openeupe.encoders import Encoder

IMAGES = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def made(name: str, **args: Any) -> Encoder:
    """An encoder whose every part acts: layer scales of 1e-5 would hide most of it."""
    torch.manual_seed(0)
    encoder = openeupe.create(name, **args).eval()
    with torch.no_grad():
        for key, tensor in encoder.named_parameters():
            if "gamma" in key or key.endswith("bias"):
                tensor.uniform_(0.2, 0.6)
    return encoder


def same(encoder: Encoder, other: Encoder) -> bool:
    with torch.no_grad():
        ours, theirs = encoder(IMAGES), other(IMAGES)
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def write_folder(folder: Path, config: Any, weights: dict[str, Tensor] | None = None) -> Path:
    (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    if weights is not None:
        save_file(weights, folder / "model.safetensors")
    return folder
