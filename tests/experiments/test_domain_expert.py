"""Training the experts of one domain."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from experiments import domain_expert
from openeupe import encoders


@pytest.mark.parametrize("domain", ["depth", "scene"])
def test_an_expert_learns_its_domain(
    domain: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder, labels, _ = domain_expert._SETS[domain]
    random = np.random.default_rng(0)
    for number in range(4):
        for inside, shape in (("images", (64, 80, 3)), (labels, (64, 80))):
            (tmp_path / folder / inside).mkdir(parents=True, exist_ok=True)
            pixels = random.integers(0, 12, shape, dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / folder / inside / f"{number}.png")
    torch.manual_seed(0)
    start = encoders.create("test_efficientnet")
    before = {key: value.clone() for key, value in start.state_dict().items()}
    monkeypatch.setattr(domain_expert.openeupe, "load", lambda _: start)
    monkeypatch.setattr(domain_expert, "_CROP", (64, 64))
    monkeypatch.setattr(domain_expert, "_STEPS", 2)
    domain_expert.main(tmp_path, domain)
    after = encoders.load(tmp_path / "experts" / domain).state_dict()
    assert any(not torch.equal(after[key], value) for key, value in before.items())
