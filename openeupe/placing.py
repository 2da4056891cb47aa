"""Atomic replacement of folders."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from openeupe import files
from openeupe.files import flush, flush_folder, leftovers, partial_path, remove

_BEFORE = "before"  # state of an old folder that was set aside
# Names of the entries of a folder that we wrote and may delete.
Ours = Callable[[Path], set[str]]


@contextlib.contextmanager
def partial_folder(folder: Path, ours: Ours) -> Iterator[Path]:
    """Yield a new, empty folder next to `folder` that will replace it.

    Partial folders of killed processes are removed first.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    recover(folder, ours)
    with files.partial_folder(folder) as partial:
        yield partial


def take_place(partial: Path, folder: Path, ours: Ours) -> None:
    """Flush `partial` to the disk and move it to `folder`.

    After a crash the old or the new folder is complete (`recover` finishes the replacement). Only
    our own files of an old folder are deleted; others are moved to the new one.
    """
    flush_folder(partial)
    before = partial_path(folder, _BEFORE)
    try:
        while True:
            with contextlib.suppress(FileNotFoundError):
                folder.rename(before)
            try:
                partial.rename(folder)
                break
            except OSError as error:  # another process was quicker: its folder is the old one now
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                _hand_over(before, folder, ours)
    except BaseException:
        if before.is_dir() and not folder.exists():
            before.rename(folder)
        raise
    flush(folder.parent)
    _hand_over(before, folder, ours)


def recover(folder: Path, ours: Ours) -> None:
    """Finish replacements of `folder` that killed processes left."""
    for path in leftovers(folder.parent, folder.name, _BEFORE):
        if path.is_symlink() or not path.is_dir():
            continue
        if folder.exists():
            _hand_over(path, folder, ours)
        else:
            path.rename(folder)


def _hand_over(before: Path, folder: Path, ours: Ours) -> None:
    """Delete our own files in an old folder, and move the others."""
    if not before.is_dir():
        return
    own = ours(before)
    # The description comes last: without it nobody would know again which files are ours.
    for path in sorted(before.iterdir(), key=lambda path: path.suffix in (".json", ".parquet")):
        if path.name in own:
            remove(path)
        elif not os.path.lexists(folder / path.name):
            path.rename(folder / path.name)
    with contextlib.suppress(OSError):
        before.rmdir()
