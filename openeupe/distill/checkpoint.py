"""Checkpoints that survive `kill -9` at any moment, their own writing included."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from openeupe.distill.parallel import placed_like, whole
from openeupe.errors import InputError
from openeupe.files import flush

_PREFIX = "step-"
_TENSORS = "state.safetensors"
_EXTRA = "state.json"


def save_checkpoint(
    folder: Path, step: int, tensors: Mapping[str, Tensor], extra: Mapping[str, Any], keep: int = 2
) -> None:
    """Write `folder/step-NNN` and drop all but the newest `keep` checkpoints.

    Everything is written and flushed to disk under another name, then renamed in one go: a
    checkpoint is there whole or not at all.

    tensors: on the CPU, each with a storage of its own; see `snapshot`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".writing-{step}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    save_file(dict(tensors), partial / _TENSORS)
    (partial / _EXTRA).write_text(json.dumps({"step": step, **extra}), encoding="utf-8")
    for file in (_TENSORS, _EXTRA):
        flush(partial / file)
    final = folder / f"{_PREFIX}{step:09d}"
    if final.exists():  # a resumed run passes the same step again, with the same content
        shutil.rmtree(final)
    partial.rename(final)
    flush(folder)
    for old in checkpoints(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)


class CheckpointWriter:
    """Writes checkpoints in a thread, so that training goes on meanwhile; one at a time."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None

    def save(
        self, folder: Path, step: int, tensors: Mapping[str, Tensor], extra: Mapping[str, Any]
    ) -> None:
        """Begin to write what nobody will change any more; see `save_checkpoint`."""
        self.wait()
        self._writing = self._pool.submit(save_checkpoint, folder, step, tensors, extra)

    def wait(self) -> None:
        """Until the last checkpoint is on the disk.

        Raises:
            InputError: if it could not be written.
        """
        writing, self._writing = self._writing, None
        if writing is None:
            return
        try:
            writing.result()
        except (OSError, SafetensorError) as error:
            raise InputError(
                f"a checkpoint cannot be written ({error}): free space and run distill again"
            ) from None


def checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints, oldest first; leftovers of an interrupted write are not among them."""
    return sorted(folder.glob(f"{_PREFIX}*")) if folder.is_dir() else []


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_checkpoint` wrote; nothing is unpickled."""
    try:
        extra = json.loads((path / _EXTRA).read_text(encoding="utf-8"))
        return load_file(path / _TENSORS), extra
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(
            f"checkpoint {path} cannot be read ({error}): delete that folder to go on from the one "
            "before it"
        ) from None


def snapshot(tensors: Mapping[str, Tensor], keep: bool = True) -> dict[str, Tensor]:
    """Copies on the CPU, shards put together: what a checkpoint holds of this moment.

    Every process must take part; with `keep` False it gets nothing. Each copy has a storage of its
    own, because the format refuses two names (tied weights) for one.
    """
    copies = {}
    for name, tensor in tensors.items():
        full = whole(tensor.detach())
        if keep:
            copies[name] = full.to("cpu", copy=True).contiguous()
    return copies


def optimizer_tensors(optimizer: torch.optim.Optimizer, prefix: str) -> dict[str, Tensor]:
    """The optimizer's state as flat tensors, named by the parameter's position."""
    state = optimizer.state_dict()["state"]
    return {
        f"{prefix}.{index}.{key}": value
        for index, values in state.items()
        for key, value in values.items()
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], prefix: str
) -> None:
    """The inverse of `optimizer_tensors`; the groups' settings stay the recipe's."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith(f"{prefix}."):
            index, key = name.removeprefix(f"{prefix}.").split(".")
            parameter = parameters[int(index)]
            fits = value.shape == parameter.shape and value.ndim > 0
            placed = placed_like(value, parameter) if fits else value
            state.setdefault(int(index), {})[key] = placed
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def module_tensors(module: nn.Module, prefix: str) -> dict[str, Tensor]:
    """The module's state under `prefix`."""
    return {f"{prefix}.{name}": value for name, value in module.state_dict().items()}


def restore_module(module: nn.Module, tensors: Mapping[str, Tensor], prefix: str) -> None:
    """The inverse of `module_tensors`, strict."""
    start = f"{prefix}."
    given = {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}
    state = module.state_dict()
    module.load_state_dict(
        {k: placed_like(v, state[k]) if k in state else v for k, v in given.items()}
    )
