"""Checkpoints that are written atomically and read at any number of processes.

Written and read by PyTorch's distributed checkpoint: every process writes the shards that it holds
into a safetensors file of its own, and any other number of processes reads from them what it needs.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint import HuggingFaceStorageReader, HuggingFaceStorageWriter

from openeupe.distillation.muon import Muon
from openeupe.distributed import Processes, whole
from openeupe.errors import InputError
from openeupe.files import flush, flush_folder, read_mapping
from openeupe.identity import file_identity, settings_identity

CHECKPOINTS = "checkpoints"  # their folder in that of the stage
_PREFIX = "step-"
_EXTRA = "state.json"
_DAMAGED = ".damaged"
_ALONE = Processes(torch.device("cpu"))


class CheckpointWriter:
    """Writes checkpoints in a background thread, one at a time.

    Args:
        processes: those with shards of the tensors; all must call all methods in the same order.
    """

    def __init__(self, processes: Processes = _ALONE) -> None:
        self.processes = processes
        _ = processes.background  # created here by all processes, not in the thread
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None

    def save(
        self,
        folder: Path,
        step: int,
        tensors: Mapping[str, Tensor],
        extra: Mapping[str, object],
        keep: int = 2,
    ) -> None:
        """Start to write `folder/step-NNN`, then remove all but the newest `keep` checkpoints.

        Everything is written and flushed to disk under another name, then renamed, so that
        a checkpoint is always complete.

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
        self,
        folder: Path,
        step: int,
        tensors: dict[str, object],
        extra: Mapping[str, object],
        keep: int,
    ) -> None:
        partial = folder / f".writing-{step}"
        write_tensors(partial, tensors, self.processes)
        if not self.processes.first:
            return
        digests = {file.name: file_identity(file) for file in sorted(partial.iterdir())}
        state = {"step": step, **extra, "files": digests}
        state["identity"] = settings_identity(state)
        (partial / _EXTRA).write_text(json.dumps(state), encoding="utf-8")
        flush_folder(partial)
        final = folder / f"{_PREFIX}{step:09d}"
        if final.exists():  # a resumed run passes the same step again, with the same content
            _remove(final)
        partial.rename(final)
        flush(folder)
        for old in checkpoints(folder)[:-keep]:
            _remove(old)

    def wait(self) -> None:
        """Wait until the last checkpoint is on the disk.

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
                f"a checkpoint cannot be written ({_why(error)}): free space and run distill again"
            ) from None


def write_tensors(folder: Path, tensors: dict[str, Any], processes: Processes) -> None:
    """Write the shards of every process. Waits until all are on the disk."""
    dcp.save(
        tensors,
        storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True),
        process_group=processes.background,
        no_dist=processes.count == 1,
    )


def checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(path for path in found if re.fullmatch(rf"{_PREFIX}\d{{9,}}", path.name))


def remove_checkpoints(folder: Path) -> None:
    """Remove all checkpoints and partial files; other files stay."""
    for path in list(folder.iterdir()) if folder.is_dir() else ():
        ours = rf"{_PREFIX}\d{{9,}}({re.escape(_DAMAGED)})?|\.writing-\d+"
        if re.fullmatch(ours, path.name):
            _remove(path)
    with suppress(OSError):  # not empty, or not there
        folder.rmdir()


def _remove(checkpoint: Path) -> None:
    if checkpoint.is_dir() and not checkpoint.is_symlink():
        shutil.rmtree(checkpoint, ignore_errors=True)


def newest_whole(folder: Path, report: Callable[[str], None]) -> Path | None:
    """Find the newest undamaged checkpoint; None if there is no checkpoint.

    Args:
        report: called with a line for each damaged checkpoint, which is renamed.

    Raises:
        InputError: if there are checkpoints, and all are damaged.
    """
    damaged: dict[Path, str] = {}
    for path in reversed(checkpoints(folder)):
        what = _damage(path)
        if not what:
            for bad, why in damaged.items():  # so that they do not count as the newest ones
                _remove(aside := bad.with_name(f"{bad.name}{_DAMAGED}"))
                bad.rename(aside)
                report(f"checkpoint {bad} is damaged ({why}): continuing from {path.name}")
            return path
        damaged[path] = what
    if damaged:
        path, why = next(iter(damaged.items()))
        raise InputError(
            f"checkpoint {path} is damaged ({why}), and so is every one before it: copy it back, "
            f"or delete {folder.parent} to begin the stage again"
        )
    return None


def _damage(path: Path) -> str:
    """Report what is wrong with a checkpoint; empty if nothing is."""
    state = read_mapping(path / _EXTRA)
    if "step" not in state:
        return f"{_EXTRA} cannot be read"
    if state.pop("identity", None) != settings_identity(state):
        return f"{_EXTRA} is not what was written"
    for name, digest in state["files"].items():
        try:
            if file_identity(path / name) != digest:
                return f"{name} is not what was written"
        except InputError as error:
            return str(error)
    return ""


class Checkpoint:
    """A checkpoint on the disk; nothing of it is unpickled.

    Attributes:
        extra: saved values other than tensors, and `step`.
        shapes: of the tensors, by name.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            state: dict[str, Any] = json.loads((path / _EXTRA).read_text(encoding="utf-8"))
            self.extra = {k: v for k, v in state.items() if k not in ("files", "identity")}
            stored = HuggingFaceStorageReader(str(path)).read_metadata().state_dict_metadata
        except (OSError, ValueError, RecursionError, SafetensorError) as error:
            raise self._unreadable(error) from None
        self.shapes = {name: tuple(one.size) for name, one in stored.items()}  # type: ignore[union-attr]

    def read_into(self, tensors: Mapping[str, Tensor], processes: Processes = _ALONE) -> None:
        """Fill tensors, or this process's shards of them, from the checkpoint.

        Names and shapes must be equal.
        """
        for name in self.shapes.keys() - tensors.keys():
            raise self._unreadable(f"{name} is of no network here")
        for name, tensor in tensors.items():
            if self.shapes.get(name) != tuple(tensor.shape):
                raise self._unreadable(f"{name} is {self.shapes.get(name, 'missing')}")
        try:
            dcp.load(
                dict(tensors),
                storage_reader=HuggingFaceStorageReader(str(self.path)),
                process_group=processes.background,
                no_dist=processes.count == 1,
            )
        except (OSError, SafetensorError, dcp.CheckpointException) as error:
            raise self._unreadable(error) from None

    def _unreadable(self, error: object) -> InputError:
        return InputError(
            f"checkpoint {self.path} cannot be read ({_why(error)}): delete that folder to go "
            "back to the one before it"
        )


def _why(error: object) -> object:
    """The first error of PyTorch's report over all processes."""
    if isinstance(error, dcp.CheckpointException):
        return next((found for found, _ in error.failures.values()), error)
    return error


def local_copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy this process's tensors or shards to the CPU."""
    return {k: t.detach().to("cpu", copy=True).contiguous() for k, t in tensors.items()}


def snapshot(tensors: Mapping[str, Tensor], keep: bool = True) -> dict[str, Tensor]:
    """Copy tensors to the CPU with shards gathered.

    All processes must call this; with `keep` False a process gets nothing.
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


def ready_optimizer(optimizer: torch.optim.Optimizer) -> None:
    """Initialize the state of AdamW or Muon, for a checkpoint to fill."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = optimizer.state[parameter]
            if isinstance(optimizer, Muon):
                state["momentum"] = torch.zeros_like(parameter)
                continue
            state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)


def module_tensors(module: nn.Module, prefix: str) -> dict[str, Tensor]:
    """The module's state under `prefix`; the module's own tensors, not copies."""
    return {f"{prefix}.{name}": value for name, value in module.state_dict().items()}
