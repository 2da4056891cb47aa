from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from openeupe.distill.checkpoint import (
    checkpoints,
    load_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
)
from openeupe.errors import InputError


def test_round_trip_keeps_the_newest(tmp_path: Path) -> None:
    for step in (1, 2, 10):
        save_checkpoint(tmp_path, step, {"a": torch.full((2,), float(step))}, {"note": step})
    assert [p.name for p in checkpoints(tmp_path)] == ["step-000000002", "step-000000010"]
    tensors, extra = load_checkpoint(checkpoints(tmp_path)[-1])
    assert torch.equal(tensors["a"], torch.full((2,), 10.0))
    assert extra == {"step": 10, "note": 10}


def test_leftovers_of_an_interrupted_write_do_not_count(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 1, {"a": torch.zeros(1)}, {})
    (tmp_path / ".writing-2").mkdir()
    (tmp_path / ".writing-2" / "state.safetensors").write_bytes(b"half")
    assert [p.name for p in checkpoints(tmp_path)] == ["step-000000001"]
    save_checkpoint(tmp_path, 2, {"a": torch.zeros(1)}, {})
    assert load_checkpoint(checkpoints(tmp_path)[-1])[1]["step"] == 2


@pytest.mark.parametrize("file", ["state.safetensors", "state.json"])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, file: str) -> None:
    save_checkpoint(tmp_path, 1, {"a": torch.zeros(100)}, {})
    path = checkpoints(tmp_path)[-1] / file
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=r"step-000000001 cannot be read .* delete that folder"):
        load_checkpoint(checkpoints(tmp_path)[-1])


def test_optimizer_goes_on_as_if_never_stopped() -> None:
    def train(module: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
        for _ in range(steps):
            module(torch.ones(2, 3)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()

    torch.manual_seed(0)
    one = nn.Linear(3, 3)
    first = torch.optim.AdamW(one.parameters(), lr=0.1, fused=True)
    train(one, first, 3)
    two = nn.Linear(3, 3)
    two.load_state_dict(one.state_dict())
    second = torch.optim.AdamW(two.parameters(), lr=0.1, fused=True)
    restore_optimizer(second, {k: v.clone() for k, v in optimizer_tensors(first, "o").items()}, "o")
    train(one, first, 3)
    train(two, second, 3)
    assert torch.equal(one.weight, two.weight)
