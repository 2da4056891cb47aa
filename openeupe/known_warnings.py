"""Known warnings of libraries, ignored without changing the caller's filters."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


def ignore_known_warnings() -> None:
    """Ignore them in this process: for commands and worker processes.

    Odd metadata of web images, a checkpoint that one process writes, and views of the output of a
    sharded network.
    """
    warnings.filterwarnings("ignore", module=r"PIL\.")
    warnings.filterwarnings("ignore", "torch.distributed is disabled")
    warnings.filterwarnings("ignore", "FSDP2-wrapped module")


@contextmanager
def known_warnings_ignored() -> Iterator[None]:
    """Ignore them inside the block, then restore the filters; also a decorator."""
    with warnings.catch_warnings():
        ignore_known_warnings()
        yield
