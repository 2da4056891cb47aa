"""Digests that identify files, encoders and settings by contents.

Every cache, saved result, export and report compares these before it reuses anything. A name, a
path or a byte size is never enough.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from openeupe.errors import InputError

_DIGITS = 16
_READERS = 4  # threads; hashing releases the lock
# (path, inode, size, modified, changed) -> digest, so that one process reads each file once.
_known: dict[tuple[object, ...], str] = {}


def facts_identity(*facts: object) -> str:
    """Identity of plain values: numbers, strings, None, and lists or mappings of them."""
    return bytes_identity(json.dumps(facts, sort_keys=True).encode())


def settings_identity(settings: Mapping[str, object]) -> str:
    """Identity of settings as plain data. The order of their keys does not matter."""
    return bytes_identity(json.dumps(settings, sort_keys=True).encode())


def files_identity(root: Path, files: Iterable[Path]) -> str:
    """Identity of files in order: names relative to `root`, and all their bytes.

    It is the same on any machine. Each file is read once a process, unless it changes.

    Raises:
        InputError: if a file cannot be read.
    """
    listed = list(files)
    with ThreadPoolExecutor(_READERS) as pool:
        contents = list(pool.map(file_identity, listed))
    digest = hashlib.sha256()
    for file, content in zip(listed, contents, strict=True):
        name = file.relative_to(root).as_posix()
        digest.update(f"{name}\0{content}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:_DIGITS]


def file_identity(file: Path) -> str:
    """Identity of one file's bytes.

    Raises:
        InputError: if the file cannot be read.
    """
    try:
        status = os.stat(file)
        key = (str(file), status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        if key not in _known:
            with file.open("rb") as stream:
                _known[key] = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror}): check the file") from None
    return _known[key]


class Identified(Protocol):
    """Values that the identity of an encoder is computed from."""

    name: str
    args: dict[str, Any]
    mean: Tensor
    std: Tensor

    def state_dict(self) -> dict[str, Tensor]:
        """Every weight by name."""
        ...


def encoder_identity(encoder: Identified) -> str:
    """Identity of an encoder: architecture, arguments, input constants and every weight."""
    constants = encoder.mean.flatten().tolist() + encoder.std.flatten().tolist()
    return facts_identity(
        encoder.name, encoder.args, constants, tensors_identity(encoder.state_dict())
    )


def tensors_identity(state: Mapping[str, Tensor]) -> str:
    """Identity of named tensors: names, dtypes, shapes and every value."""
    digest = hashlib.sha256()
    for key, tensor in sorted(state.items()):
        digest.update(f"{key} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:_DIGITS]


def arrays_identity(*arrays: NDArray[Any]) -> str:
    """Identity of NumPy arrays in order: their types, shapes and values."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:_DIGITS]


def bytes_identity(content: bytes) -> str:
    """Identity of bytes in memory."""
    return hashlib.sha256(content).hexdigest()[:_DIGITS]


def listing_identity(entries: Iterable[tuple[str, int]]) -> str:
    """Identity of a listing of names and sizes: cheap, but independent of the contents.

    For images, the contents are compared as well.
    """
    digest = hashlib.sha256()
    for name, size in entries:
        digest.update(f"{name}\0{size}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:_DIGITS]
