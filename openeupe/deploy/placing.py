"""Folders that take their place whole, also when the process is killed or the power fails."""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from openeupe.files import flush

_NAME = 80  # characters of a folder's name that its partial folders repeat
_HOST = re.sub(r"[^\w-]", "", platform.node())[:24]
_DAY = 24 * 3600
# Names of the entries of a folder that we wrote and may delete.
Ours = Callable[[Path], set[str]]


@contextlib.contextmanager
def partial_folder(folder: Path, ours: Ours) -> Iterator[Path]:
    """A new, empty folder next to `folder`, to write what shall take its place.

    What killed processes left of earlier attempts is removed first. What is left at the end, too.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    recover(folder, ours)
    partial = _next_to(folder, "writing")
    partial.mkdir()
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def take_place(partial: Path, folder: Path, ours: Ours) -> None:
    """Flush `partial` to the disk and move it to `folder`.

    After a crash there is the old folder or the new one, whole (`recover` completes it). Of an old
    folder only our own files are deleted: all others move to the new one.
    """
    _flush_all(partial)
    before = _next_to(folder, "before")
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
    """Complete or remove what killed processes left of writing `folder`."""
    for path in list(folder.parent.iterdir()) if folder.parent.is_dir() else ():
        found = re.fullmatch(r"\.(.+)\.(\d+)@([\w-]*)\.(writing|before)", path.name)
        if not found or found[1] != folder.name[:_NAME] or path.is_symlink() or not path.is_dir():
            continue
        if _alive(int(found[2]), found[3], path):
            continue
        if found[4] == "writing":
            shutil.rmtree(path, ignore_errors=True)
        elif folder.exists():
            _hand_over(path, folder, ours)
        else:
            path.rename(folder)


def _next_to(folder: Path, state: str) -> Path:
    return folder.with_name(f".{folder.name[:_NAME]}.{os.getpid()}@{_HOST}.{state}")


def _alive(process: int, host: str, path: Path) -> bool:
    """Whether another process that may still be running is at work on a partial folder."""
    if process == os.getpid() and host == _HOST:
        return False  # an earlier process had our number
    try:
        if host != _HOST or os.name == "nt":  # where we cannot ask
            return time.time() - path.stat().st_mtime < _DAY
        os.kill(process, 0)
    except (ProcessLookupError, FileNotFoundError, OverflowError):
        return False
    except OSError:
        return True
    return True


def _hand_over(before: Path, folder: Path, ours: Ours) -> None:
    """Delete our own files in an old folder, and move all others to the new one."""
    if not before.is_dir():
        return
    own = ours(before)
    # The description comes last: without it nobody would know again which files are ours.
    for path in sorted(before.iterdir(), key=lambda path: path.suffix == ".json"):
        if path.name in own:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        elif not os.path.lexists(folder / path.name):
            path.rename(folder / path.name)
    with contextlib.suppress(OSError):
        before.rmdir()


def _flush_all(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            _flush_all(path)
        else:
            flush(path)
    flush(folder)
