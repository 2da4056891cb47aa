from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from openeupe.distillation.checkpoint import (
    Checkpoint,
    CheckpointWriter,
    checkpoints,
    local_copies,
    module_tensors,
    newest_whole,
    optimizer_tensors,
    ready_optimizer,
)
from openeupe.errors import InputError


def save(folder: Path, step: int, tensors: dict[str, torch.Tensor]) -> None:
    writer = CheckpointWriter()
    writer.save(folder, step, local_copies(tensors), {"note": step})
    writer.wait()


def test_round_trip_keeps_the_newest(tmp_path: Path) -> None:
    for step in (1, 2, 10):
        tensors = {
            "a": torch.full((2,), float(step)),
            "scalar": torch.tensor(step),
            "half": torch.ones(3, 2, dtype=torch.bfloat16),
            "empty": torch.zeros(0, 4),
        }
        save(tmp_path, step, tensors)
    assert [p.name for p in checkpoints(tmp_path)] == ["step-000000002", "step-000000010"]
    found = Checkpoint(checkpoints(tmp_path)[-1])
    assert found.extra == {"step": 10, "note": 10}
    assert found.shapes == {"a": (2,), "scalar": (), "half": (3, 2), "empty": (0, 4)}
    back = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
    found.read_into(back)
    assert all(torch.equal(back[name], tensor) for name, tensor in tensors.items())


def test_tied_weights_and_views_are_kept(tmp_path: Path) -> None:
    tied = torch.arange(6.0)
    save(tmp_path, 1, {"a": tied, "b": tied, "turned": tied.view(2, 3).t()})
    back = {"a": torch.zeros(6), "b": torch.zeros(6), "turned": torch.zeros(3, 2)}
    Checkpoint(checkpoints(tmp_path)[0]).read_into(back)
    assert torch.equal(back["a"], tied)
    assert torch.equal(back["b"], tied)
    assert torch.equal(back["turned"], tied.view(2, 3).t())


def test_leftovers_of_an_interrupted_write_do_not_count(tmp_path: Path) -> None:
    save(tmp_path, 1, {"a": torch.zeros(1)})
    (tmp_path / ".writing-2").mkdir()
    (tmp_path / ".writing-2" / "shard.safetensors").write_bytes(b"half")
    assert [p.name for p in checkpoints(tmp_path)] == ["step-000000001"]
    save(tmp_path, 2, {"a": torch.zeros(1)})
    assert Checkpoint(checkpoints(tmp_path)[-1]).extra["step"] == 2


@pytest.mark.parametrize("file", ["*.safetensors", "state.json"])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, file: str) -> None:
    save(tmp_path, 1, {"a": torch.zeros(100)})
    (path,) = checkpoints(tmp_path)[-1].glob(file)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=r"step-000000001 cannot be read .* delete that folder"):
        Checkpoint(checkpoints(tmp_path)[-1]).read_into({"a": torch.zeros(100)})


def test_a_checkpoint_of_other_networks_is_named(tmp_path: Path) -> None:
    save(tmp_path, 1, {"a": torch.zeros(3)})
    for wanted in ({"a": torch.zeros(4)}, {"b": torch.zeros(3)}, {}):  # a tensor more is one, too
        with pytest.raises(InputError, match=r"step-000000001 cannot be read \([ab] is"):
            Checkpoint(checkpoints(tmp_path)[0]).read_into(wanted)


def test_a_checkpoint_that_cannot_be_written_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("openeupe.distillation.checkpoint.write_tensors", full)
    with pytest.raises(InputError, match=r"cannot be written \(.*No space left .*free space"):
        save(tmp_path, 1, {"a": torch.zeros(3)})
    assert not checkpoints(tmp_path)


def test_optimizer_goes_on_as_if_never_stopped(tmp_path: Path) -> None:
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
    second = torch.optim.AdamW(two.parameters(), lr=0.1, fused=True)
    ready_optimizer(second)
    save(tmp_path, 3, optimizer_tensors(first, "o") | module_tensors(one, "m"))
    mine = optimizer_tensors(second, "o") | module_tensors(two, "m")
    Checkpoint(checkpoints(tmp_path)[0]).read_into(mine)
    train(one, first, 3)
    train(two, second, 3)
    assert torch.equal(one.weight, two.weight)


@pytest.mark.parametrize("lost", [("files",), ("files", "identity")])
def test_a_state_without_its_digests_is_damaged(tmp_path: Path, lost: tuple[str, ...]) -> None:
    save(tmp_path, 1, {"a": torch.zeros(2)})
    (path,) = checkpoints(tmp_path)
    state = json.loads((path / "state.json").read_text())
    state = {key: value for key, value in state.items() if key not in lost}
    (path / "state.json").write_text(json.dumps(state))
    with pytest.raises(InputError, match=r"state\.json is not what was written"):
        newest_whole(path.parent, print)
