"""Tar shards in WebDataset layout, read in place."""

from __future__ import annotations

import errno
import glob
import os
import re
import tarfile
import threading
from array import array
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from openeupe.data.decode import EXTENSIONS, BrokenImage, decode
from openeupe.data.string_array import Names, printable
from openeupe.errors import InputError
from openeupe.identity import facts_identity, file_identity
from openeupe.limits import IMAGE_BYTES, IMAGES, SHARDS

_OPEN_SHARDS = 32  # files a process keeps open: far below every system's limit


class ShardSource:
    """The images of local, uncompressed tar files; nothing is ever extracted.

    Consecutive members of one key (the path up to the first dot of the file name) are one sample;
    its image is the first member whose whole extension is an image's, so `7.jpg` of
    `7.jpg, 7.seg.png, 7.json`. Samples without an image are skipped. Headers are read once, at
    construction; an image costs some 20 bytes of index and its key.

    Args:
        path: a folder of `*.tar` files, one tar file, or a pattern with `{000..127}`, `{a,b}`,
            `*`, `?` or `[...]`.

    Raises:
        InputError: if a shard is missing, unreadable, compressed or truncated, or none has images.
    """

    weights = None

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        self.shards = find_shards(self.path)
        shards, offsets, sizes = array("i"), array("q"), array("q")

        def keys() -> Iterator[str]:
            for number, shard in enumerate(self.shards):
                for key, offset, size in _images(shard):
                    if len(shards) == IMAGES:
                        raise InputError(f"data path {path} holds more than {IMAGES} images")
                    shards.append(number)
                    offsets.append(offset)
                    sizes.append(size)
                    yield key

        self._keys = Names(keys())
        self._shards = np.frombuffer(shards, dtype=np.int32)
        self._offsets = np.frombuffer(offsets, dtype=np.int64)
        self._sizes = np.frombuffer(sizes, dtype=np.int64)
        if not len(self):
            raise InputError(
                f"data path {path} holds no images: its tar files need members such as 000017.jpg "
                f"({', '.join(EXTENSIONS)}), with no other dot in the file name"
            )
        self._files = OpenShards()

    def __len__(self) -> int:
        return len(self._keys)

    def read(self, index: int, min_resolution: int | None = None) -> Image.Image:
        """RGB image `index`; see `decode` for `min_resolution`. Raises `BrokenImage`."""
        try:
            encoded = self.encoded(index)
        except OSError as error:
            raise BrokenImage(f"{self.name(index)}: {error.strerror}") from error
        return decode(encoded, self.name(index), min_resolution)

    def encoded(self, index: int) -> bytes:
        """The member's bytes. Raises `OSError`."""
        file, offset, size = self.place(index)
        return self._files.read(file, offset, size)

    def place(self, index: int) -> tuple[str, int, int]:
        """Shard, first byte and size of the member."""
        shard = self.shards[self._shards[index]]
        return shard, int(self._offsets[index]), int(self._sizes[index])

    def encoded_bytes(self, index: int) -> int:
        """Size of the member."""
        return int(self._sizes[index])

    def sizes(self) -> NDArray[np.int64]:
        """Bytes of every member."""
        return self._sizes

    def listing(self) -> Iterator[tuple[str, int]]:
        """Shard, key and size of every member."""
        for index in range(len(self)):
            shard = Path(self.shards[self._shards[index]]).name
            yield f"{shard}: {self._keys[index]}", self.encoded_bytes(index)

    @property
    def fingerprint(self) -> str:
        """Identity of the shards by their contents, in order."""
        return facts_identity([file_identity(Path(shard)) for shard in self.shards])

    def name(self, index: int) -> str:
        """`shard.tar: key`, for messages."""
        return printable(f"{self.shards[self._shards[index]]}: {self._keys[index]}")


class OpenShards:
    """Shards that stay open between reads. They serve any number of threads and processes."""

    def __init__(self) -> None:
        self._opened = lru_cache(_OPEN_SHARDS)(_Shard)

    def read(self, file: str, offset: int, size: int) -> bytes:
        """`size` bytes from `offset` on. Raises `OSError`."""
        return self._opened(file).read(offset, size)

    def count(self) -> int:
        """Number of shards that are open."""
        return self._opened.cache_info().currsize

    def __reduce__(self) -> tuple[Any, ...]:
        return OpenShards, ()


class _Shard:
    """An open file without a position that its readers could share. The last one closes it."""

    def __init__(self, path: str) -> None:
        self._handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        self._lock = threading.Lock()  # only for systems without pread

    def read(self, offset: int, size: int) -> bytes:
        parts, lacking = [], size
        while lacking:  # one call gives at most 2 GB
            part = self._some(offset + size - lacking, lacking)
            if not part:
                raise OSError(errno.EIO, "the shard ends before its member")
            parts.append(part)
            lacking -= len(part)
        return b"".join(parts)

    def _some(self, offset: int, size: int) -> bytes:
        if hasattr(os, "pread"):
            return os.pread(self._handle, size, offset)
        with self._lock:  # Windows: no processes are forked, so that a lock is never copied
            os.lseek(self._handle, offset, os.SEEK_SET)
            return os.read(self._handle, size)

    def __del__(self) -> None:
        if hasattr(self, "_handle"):
            os.close(self._handle)


def find_shards(path: str) -> list[str]:
    """Tar files of a folder, file or pattern, in a fixed order."""
    expanded = os.path.expanduser(path)
    if os.path.isdir(expanded):
        found = sorted(str(file) for file in Path(expanded).glob("*.tar"))
        if not found:
            raise InputError(f"data path {path} holds no .tar files: check the path")
        return found
    found = []
    for pattern in patterns(path):
        matches = [pattern] if os.path.exists(pattern) else sorted(glob.glob(pattern))
        if not matches:
            raise InputError(f"data path {path}: there is no {pattern}: check the path")
        found.extend(matches)
    return found


def patterns(path: str) -> list[str]:
    """Expand braces into patterns with `*`, `?` or `[...]`."""
    expanded = os.path.expanduser(path)
    return [expanded] if os.path.exists(expanded) else _braces(expanded)


def _braces(pattern: str) -> list[str]:
    """`a{01..03}` -> a01, a02, a03 and `{x,y}` -> x, y, from left to right."""
    match = re.search(r"\{([^{}]*)\}", pattern)
    if match is None:
        return [pattern]
    inner = match[1]
    if numbers := re.fullmatch(r"(\d+)\.\.(\d+)", inner):
        first, last = numbers[1], numbers[2]
        numbered = range(int(first[-18:]), int(last[-18:]) + 1)  # more digits make no file name
        _check_count(pattern, len(numbered))
        choices = [f"{n:0{len(first)}d}" for n in numbered]
    else:
        choices = inner.split(",")
    tails = _braces(pattern[match.end() :])
    _check_count(pattern, len(choices) * len(tails))
    return [pattern[: match.start()] + choice + tail for choice in choices for tail in tails]


def _check_count(pattern: str, files: int) -> None:
    if files > SHARDS:
        raise InputError(f"data path {pattern} names more than {SHARDS} files: use fewer patterns")


def _images(shard: str) -> Iterator[tuple[str, int, int]]:
    """Key, offset and size in bytes of each sample's image."""
    try:
        if not os.path.isfile(shard):  # a pipe or device might never end
            raise tarfile.ReadError("it is not a file")
        with tarfile.open(shard, "r:") as archive:
            taken = None
            while (member := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # or it would keep every header
                folder, _, file = member.name.rpartition("/")
                stem, _, extension = file.partition(".")
                key = f"{folder}/{stem}" if folder else stem
                if key == taken or not stem or not member.isreg() or member.issparse():
                    continue
                if extension.lower() in EXTENSIONS:
                    taken = key
                    if member.size > IMAGE_BYTES:
                        raise tarfile.ReadError(
                            f"{member.name} has {member.size} bytes, more than {IMAGE_BYTES}"
                        )
                    yield key, member.offset_data, member.size
            _check_end(shard, archive.offset)
    except (OSError, tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        raise InputError(
            f"shard {shard} cannot be read as an uncompressed tar file ({error}): "
            "decompress it or make it again"
        ) from error


def _check_end(shard: str, offset: int) -> None:
    """tarfile takes a damaged header in the middle for the end. The end is zeros or nothing."""
    with open(shard, "rb") as file:
        file.seek(offset)
        if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
            raise tarfile.ReadError(f"damaged header near byte {offset}")
