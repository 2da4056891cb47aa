"""Locks on folders, so that two processes never write the same one."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from openeupe.errors import InputError

LOCK = ".lock"


@contextmanager
def locked(folder: Path, what: str) -> Iterator[None]:
    """Create a folder if needed, and lock it until the block ends.

    The system releases the lock when this process dies.

    The file `.lock` stays in the folder. Where the file system has no locks, nothing is locked.

    Args:
        what: name of the folder in messages, such as "the run".

    Raises:
        InputError: at once, if another process holds the lock, or the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{what} {folder} cannot be made ({error.strerror}): choose another folder"
        ) from None
    file = folder / LOCK
    lock = FileLock(file, fallback_to_soft=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(
            f"{what} {folder} is in use by {_holder(file)}: wait until it has ended, or stop it"
        ) from None
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and not os.access(folder, os.W_OK):
            raise InputError(f"{folder} cannot be written ({error.strerror})") from None
        yield
        return
    try:
        with suppress(OSError):  # Windows lets nobody write to a locked file
            file.write_text(f"{platform.node()} {os.getpid()}\n", encoding="utf-8")
        yield
    finally:
        lock.release()


def _holder(file: Path) -> str:
    try:
        host, process = file.read_text(encoding="utf-8").split()
        return f"process {int(process)} on {host}"
    except (OSError, ValueError):
        return "another process"
