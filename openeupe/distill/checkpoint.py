"""Checkpoints that survive `kill -9` at any moment, their own writing included.

Written and read by PyTorch's distributed checkpoint: every process writes the shards that it holds
into a safetensors file of its own, and any other number of processes reads from them what it needs.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint import HuggingFaceStorageReader, HuggingFaceStorageWriter

from openeupe.distill.parallel import Processes, whole
from openeupe.errors import InputError
from openeupe.files import flush

_PREFIX = "step-"
_EXTRA = "state.json"
_ALONE = Processes(torch.device("cpu"))

warnings.filterwarnings("ignore", "torch.distributed is disabled")  # we say so ourselves


class CheckpointWriter:
    """Writes checkpoints in a thread, so that training goes on meanwhile; one at a time.

    Args:
        processes: those that hold parts of the tensors; all must call all methods, in like order.
    """

    def __init__(self, processes: Processes = _ALONE) -> None:
        self.processes = processes
        _ = processes.beside  # made here, by all at once, and not in the thread
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None

    def save(
        self,
        folder: Path,
        step: int,
        tensors: Mapping[str, Tensor],
        extra: Mapping[str, Any],
        keep: int = 2,
    ) -> None:
        """Begin to write `folder/step-NNN`, then drop all but the newest `keep` checkpoints.

        Everything is written and flushed to disk under another name, then renamed in one go: a
        checkpoint is there whole or not at all.

        tensors: on the CPU, shards of `DTensor`s included, and changed by nobody any more; see
            `local_copies`.
        """
        self.wait()
        partial = folder / f".writing-{step}"
        if self.processes.first:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        self.processes.wait()
        self._writing = self._pool.submit(self._write, folder, step, dict(tensors), extra, keep)

    def _write(
        self, folder: Path, step: int, tensors: dict[str, Any], extra: Mapping[str, Any], keep: int
    ) -> None:
        partial = folder / f".writing-{step}"
        write_tensors(partial, tensors, self.processes)
        if not self.processes.first:
            return
        (partial / _EXTRA).write_text(json.dumps({"step": step, **extra}), encoding="utf-8")
        flush(partial / _EXTRA)
        flush(partial)
        final = folder / f"{_PREFIX}{step:09d}"
        if final.exists():  # a resumed run passes the same step again, with the same content
            shutil.rmtree(final)
        partial.rename(final)
        flush(folder)
        for old in checkpoints(folder)[:-keep]:
            shutil.rmtree(old, ignore_errors=True)

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
        except (OSError, SafetensorError, dcp.CheckpointException) as error:
            raise InputError(
                f"a checkpoint cannot be written ({_told(error)}): free space and run distill again"
            ) from None


def write_tensors(folder: Path, tensors: dict[str, Any], processes: Processes) -> None:
    """Every process its shards; back when all are on the disk."""
    dcp.save(
        tensors,
        storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True),
        process_group=processes.beside,
        no_dist=processes.count == 1,
    )


def checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints, oldest first; leftovers of an interrupted write are not among them."""
    return sorted(folder.glob(f"{_PREFIX}*")) if folder.is_dir() else []


class Checkpoint:
    """A checkpoint on the disk; nothing of it is unpickled.

    Attributes:
        extra: what was saved beside the tensors, and `step`.
        shapes: of the tensors, by name.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.extra: dict[str, Any] = json.loads((path / _EXTRA).read_text(encoding="utf-8"))
            stored = HuggingFaceStorageReader(str(path)).read_metadata().state_dict_metadata
        except (OSError, ValueError, SafetensorError) as error:
            raise self._unreadable(error) from None
        self.shapes = {name: tuple(one.size) for name, one in stored.items()}  # type: ignore[union-attr]

    def read_into(self, tensors: Mapping[str, Tensor], processes: Processes = _ALONE) -> None:
        """Fill tensors, or this process's shards of them; all must be stored, with these shapes."""
        for name, tensor in tensors.items():
            if self.shapes.get(name) != tuple(tensor.shape):
                raise self._unreadable(f"{name} is {self.shapes.get(name, 'missing')}")
        try:
            dcp.load(
                dict(tensors),
                storage_reader=HuggingFaceStorageReader(str(self.path)),
                process_group=processes.beside,
                no_dist=processes.count == 1,
            )
        except (OSError, SafetensorError, dcp.CheckpointException) as error:
            raise self._unreadable(error) from None

    def _unreadable(self, error: object) -> InputError:
        return InputError(
            f"checkpoint {self.path} cannot be read ({_told(error)}): delete that folder to go on "
            "from the one before it"
        )


def _told(error: object) -> object:
    """The first process's own error, out of what is told of all."""
    if isinstance(error, dcp.CheckpointException):
        return next((found for found, _ in error.failures.values()), error)
    return error


def local_copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU of what this process holds: shards stay shards."""
    return {k: t.detach().to("cpu", copy=True).contiguous() for k, t in tensors.items()}


def snapshot(tensors: Mapping[str, Tensor], keep: bool = True) -> dict[str, Tensor]:
    """Copies on the CPU, shards put together. Every process must take part; with `keep` False it
    gets nothing.
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


def ready_optimizer(optimizer: torch.optim.AdamW) -> None:
    """Give AdamW the state that it would make in its first step, for a checkpoint to fill."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = optimizer.state[parameter]
            state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)


def module_tensors(module: nn.Module, prefix: str) -> dict[str, Tensor]:
    """The module's state under `prefix`; the module's own tensors, not copies."""
    return {f"{prefix}.{name}": value for name, value in module.state_dict().items()}
