"""Atomic file writing, JSON files and file names."""

from __future__ import annotations

import json
import math
import os
import platform
import re
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

_WRITING = "writing"
_NAME = 80  # characters of a name that its partial file repeats
_HOST = re.sub(r"[^\w-]", "", platform.node())[:24]
_DAY = 24 * 3600


def strict_json(content: object) -> str:
    """Format data as indented JSON; numbers that are not finite become null."""
    return json.dumps(_finite(content), indent=2, allow_nan=False)


def _finite(content: object) -> object:
    if isinstance(content, dict):
        return {str(key): _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    if hasattr(content, "item"):
        content = content.item()
    return None if isinstance(content, float) and not math.isfinite(content) else content


def read_mapping(path: Path) -> dict[str, Any]:
    """Read the mapping in a JSON file. Return an empty one if there is none.

    For files that somebody else may have written, or that may be half written.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def folder_name(source: str) -> str:
    """Folder name for an encoder's name or address: `hf-hub:A/B` -> `hf-hub_A_B`."""
    return re.sub(r"[^\w.-]+", "_", source)


def vacant(folder: Path) -> bool:
    """Whether a path does not exist or is an empty folder."""
    return not any(folder.iterdir()) if folder.is_dir() else not folder.exists()


def write_atomically(path: Path, text: str) -> None:
    """Write a small text file whole or not at all."""
    with durable(path) as partial:
        partial.write_text(text, encoding="utf-8")


@contextmanager
def durable(path: Path) -> Iterator[Path]:
    """Yield a temporary path that replaces `path` at the end. It is flushed to the disk.

    After a crash or a power cut `path` is the old file or the new one, whole. The umask decides
    its mode.
    """
    remove_partials(path.parent, path.name)
    partial = partial_path(path)
    try:
        partial.unlink(missing_ok=True)
        partial.touch()
        mode = stat.S_IMODE(partial.stat().st_mode)
        with _os_errors():
            yield partial
        partial.chmod(mode)  # safetensors makes files that nobody else can read
        flush(partial)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    flush(path.parent)


@contextmanager
def partial_folder(folder: Path) -> Iterator[Path]:
    """Yield a new, empty folder next to `folder` that will replace it.

    The caller calls `flush_folder` and moves it, or the files in it. What is left is removed.
    """
    remove_partials(folder.parent, folder.name)
    partial = partial_path(folder)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        with _os_errors():
            yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def _os_errors() -> Iterator[None]:
    """Convert safetensors' error for a full disk to `OSError`."""
    try:
        yield
    except SafetensorError as error:
        found = re.search(r"os error (\d+)", str(error))
        if found is None:
            raise
        raise OSError(int(found[1]), os.strerror(int(found[1]))) from error


def partial_path(path: Path, state: str = _WRITING) -> Path:
    """Temporary path of this process for writing `path`.

    state: the last part of the name.
    """
    return path.with_name(f".{path.name[:_NAME]}.{os.getpid()}@{_HOST}.{state}")


def remove_partials(folder: Path, name: str | None = None) -> None:
    """Remove partial files that killed processes left in a folder.

    Args:
        name: of a file or folder; only what should have become that is removed.
    """
    for path in leftovers(folder, name):
        remove(path)


def remove(path: Path) -> None:
    """Remove a file, link or folder with its contents, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def leftovers(folder: Path, name: str | None = None, state: str = _WRITING) -> list[Path]:
    """Find partial files and folders in `folder` whose processes have ended.

    Args:
        name: of a file or folder; only what belongs to that counts.
        state: as in `partial_path`.
    """
    found = []
    pattern = re.compile(rf"\.(.+)\.(\d+)@([\w-]*)\.{re.escape(state)}")
    for path in folder.iterdir() if folder.is_dir() else ():
        parts = pattern.fullmatch(path.name)
        if not parts:
            continue
        of = parts[1]
        while nested := pattern.fullmatch(of):  # a partial of a partial
            of = nested[1]
        if name is not None and of != name[:_NAME]:
            continue
        if not _is_writing(int(parts[2]), parts[3], path):
            found.append(path)
    return found


def _is_writing(process: int, host: str, partial: Path) -> bool:
    """Whether the process that began a partial file may still write it."""
    if host != _HOST or os.name == "nt":  # where we cannot ask
        try:
            return time.time() - partial.stat().st_mtime < _DAY
        except OSError:
            return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def flush_folder(folder: Path) -> None:
    """Wait until a folder and everything in it is on the disk. The umask decides the modes."""
    mode = stat.S_IMODE(folder.stat().st_mode) & 0o666
    for inner in folder.iterdir():
        if inner.is_dir():
            flush_folder(inner)
        else:
            inner.chmod(mode)
            flush(inner)
    flush(folder)


def flush(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    if path.is_dir() and os.name == "nt":  # Windows has no handle for a folder
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
