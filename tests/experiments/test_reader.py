"""Training the packaged reader."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from experiments.reader import teach
from openeupe.evaluation.vlm.reader import load_reader
from openeupe.evaluation.vlm.training import Lesson

pytest.importorskip("transformers")


def test_teaching_is_a_function_of_its_seed(tmp_path: Path) -> None:
    lesson = Lesson(train="all", lr=2e-3, batch_size=4, steps=3, abilities=("place",))
    first, again, other = (
        teach([lesson], scenes=8, width=16, layers=1, seed=seed) for seed in (0, 0, 1)
    )
    weights = [torch.cat([p.flatten() for p in m.parameters()]) for m in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    first.to(torch.bfloat16).save(tmp_path)
    kept = load_reader(tmp_path)
    assert kept.form == first.form
    for name, weight in kept.state_dict().items():
        assert torch.equal(weight, first.state_dict()[name].float()), name
