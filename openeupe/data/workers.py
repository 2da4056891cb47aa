"""Loader processes, with errors for killed or stuck ones."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from openeupe.errors import InputError
from openeupe.known_warnings import ignore_known_warnings
from openeupe.stopping import end_with_parent

PATIENCE_S = 900.0  # without any item; a cold network disk may need minutes for a large batch
_LOOK_S = 5  # seconds between two looks at the processes
Item = TypeVar("Item")


def loaded(
    dataset: Dataset[Item], order: Sequence[object], workers: int, *, pin: bool = False
) -> Iterator[Item]:
    """Yield items of a dataset in order, loaded ahead by worker processes.

    Args:
        workers: processes; 0: in this one.
        pin: put tensors into page-locked memory.

    Raises:
        InputError: if a process was killed, or gave nothing for `PATIENCE_S` seconds.
    """
    loader = DataLoader(
        dataset,
        batch_size=None,  # an item is whole as it is
        sampler=order,
        num_workers=workers,
        collate_fn=_as_it_is,
        prefetch_factor=2 if workers else None,
        pin_memory=pin,
        generator=torch.Generator(),  # else the loader draws from the global one
        timeout=_LOOK_S if workers else 0,
        worker_init_fn=_begin,
    )
    items = _begun(loader)
    try:
        while True:
            try:
                item = _next(items)
            except StopIteration:
                return
            yield item
    finally:
        processes = list(getattr(items, "_workers", ()))
        del items  # ends them, as far as they listen
        for process in processes:
            if process.is_alive():
                process.kill()


def _begun(loader: DataLoader[Any]) -> Iterator[Any]:
    """The loader's iterator, without its signal handler that raises errors anywhere."""
    name = getattr(signal, "SIGCHLD", None)
    if name is None or threading.current_thread() is not threading.main_thread():
        return iter(loader)
    before = signal.getsignal(name)
    items = iter(loader)
    signal.signal(name, before if before is not None else signal.SIG_DFL)
    return items


def _next(items: Iterator[Item]) -> Item:
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            return next(items)
        except RuntimeError as error:
            if "exited unexpectedly" in str(error):
                raise InputError(
                    "a data loader process was killed, probably for lack of (shared) memory: "
                    "lower data.workers or the batch size"
                ) from error
            if "timed out" not in str(error):
                raise
            if time.monotonic() > end:
                raise InputError(
                    f"the data loader processes gave nothing for {PATIENCE_S:.0f} s, one of them "
                    "is stuck or stopped: check that the disk with the images answers, then run "
                    "the same command again (data.workers=0 reads without processes)"
                ) from error


def _begin(_: int) -> None:
    """Initialize a worker: ignore stop signals, which are sent to all processes of a run.

    PyTorch's own watch looks at the wrong parent where a fork server starts the workers.
    """
    end_with_parent()
    ignore_known_warnings()  # not inherited where workers are not copies of this process
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_IGN)


def _as_it_is(item: object) -> object:
    return item
