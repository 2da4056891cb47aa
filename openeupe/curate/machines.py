"""Several processes share the long work, under torchrun; by itself a process does all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch.distributed as dist

from openeupe.stopping import end_with_parent

_PATIENCE = timedelta(days=7)  # until the slowest machine has finished its parts


class Machines:
    """This process among those that torchrun started. All of them see the same file system.

    Each does its share of a list of parts and writes files; nothing else is exchanged.
    """

    def __init__(self) -> None:
        self.rank = int(os.environ.get("RANK", "0"))
        self.count = int(os.environ.get("WORLD_SIZE", "1"))

    @property
    def first(self) -> bool:
        """Whether this process does what cannot be shared."""
        return self.rank == 0

    def mine(self, parts: int) -> range:
        """The parts that this process does: every `count`-th."""
        return range(self.rank, parts, self.count)

    def wait(self) -> None:
        """Until all processes have come here."""
        if self.count > 1:
            dist.barrier()


@contextmanager
def machines() -> Iterator[Machines]:
    """The processes of this launch, joined while it lasts."""
    here = Machines()
    if here.count > 1:
        end_with_parent()
        dist.init_process_group("gloo", timeout=_PATIENCE)
    try:
        yield here
    finally:
        if here.count > 1:
            dist.destroy_process_group()
