"""Image pool: the images of several folders and shards as one numbered list."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from openeupe.curation.hashing import digest
from openeupe.data import (
    BrokenImage,
    FolderSource,
    ShardSource,
    SourceConfig,
    decode,
    open_source,
)
from openeupe.data.string_array import printable
from openeupe.errors import InputError

PART = 2048  # images that are read, written and resumed together


@dataclass(frozen=True)
class Place:
    """Location of an image: a file of a root, or bytes of a shard."""

    source: int
    path: str
    offset: int | None
    size_bytes: int


class ImagePool:
    """Images of folders and tar shards, in a fixed order.

    Args:
        paths: folders of images, and tar shards (a file, a folder of them, a pattern).

    Attributes:
        roots: the folder that each source's paths are relative to.

    Raises:
        InputError: if a path is neither, or holds no image.
    """

    def __init__(self, paths: Sequence[str | Path]) -> None:
        self.sources: list[FolderSource | ShardSource] = []
        self.roots: list[Path] = []
        for path in paths:
            if not str(path):
                raise InputError("an empty path holds no images: name a folder or tar files")
            try:
                str(path).encode()
            except UnicodeEncodeError:  # a manifest could not hold it
                raise InputError(
                    f"{printable(str(path))} is no name in UTF-8: rename the folder"
                ) from None
            source = open_source(SourceConfig(path=str(path)))
            if isinstance(source, FolderSource):
                self.roots.append(source.root.resolve())
            elif isinstance(source, ShardSource):
                folders = {os.path.dirname(os.path.abspath(shard)) for shard in source.shards}
                self.roots.append(Path(os.path.commonpath(folders)))
            else:
                raise InputError(
                    f"{path}: only folders of images and tar shards can be curated; "
                    "write the images to one of these"
                )
            self.sources.append(source)
        self._starts = [0]
        for source in self.sources:
            self._starts.append(self._starts[-1] + len(source))

    def __len__(self) -> int:
        return self._starts[-1]

    @property
    def parts(self) -> int:
        """Number of parts."""
        return -(-len(self) // PART)

    def rows(self, part: int) -> range:
        """The images of a part."""
        return range(part * PART, min((part + 1) * PART, len(self)))

    def place(self, row: int) -> Place:
        """Location of image `row`."""
        number, index = self._find(row)
        source = self.sources[number]
        if isinstance(source, FolderSource):
            return Place(number, source.relative(index), None, _size(source, index))
        shard, offset, size = source.place(index)
        inside = Path(os.path.abspath(shard)).relative_to(self.roots[number])
        return Place(number, inside.as_posix(), offset, size)

    def encoded(self, row: int) -> bytes:
        """The bytes of image `row`. Raises `OSError`."""
        number, index = self._find(row)
        return self.sources[number].encoded(index)

    def read_again(
        self, row: int, digests: NDArray[np.uint64], min_resolution: int | None = None
    ) -> Image.Image:
        """RGB image `row`, which `scan` could read; see `decode` for `min_resolution`.

        Args:
            digests: `[len(image_pool), 2]` of the images that were scanned.

        Raises:
            InputError: if it cannot be read, or has changed since it was scanned.
        """
        try:
            encoded = self.encoded(row)
            if digest(encoded) == digests[row].tobytes():
                return decode(encoded, self.name(row), min_resolution)
        except (BrokenImage, OSError):
            pass
        raise InputError(f"{self.name(row)} changed since it was scanned: curate again")

    def name(self, row: int) -> str:
        """Name of image `row`: its path, or shard and key."""
        number, index = self._find(row)
        return self.sources[number].name(index)

    def listing(self, part: int) -> str:
        """Hash of a part's file names, sizes and times, and the roots.

        Files are not read: their size and both their times stand for what they hold, since nobody
        can set the second (ctime) back.
        """
        states = hashlib.blake2b(digest_size=16)
        for line in self._states(part):
            states.update(line.encode("utf-8", "surrogatepass"))
        return states.hexdigest()

    def _states(self, part: int) -> Iterator[str]:
        shards: dict[str, str] = {}
        for row in self.rows(part):
            place = self.place(row)
            root = self.roots[place.source]
            file = os.path.join(root, place.path)
            if place.offset is None or file not in shards:
                shards[file] = _state(file)
            where = f"{place.source}\0{root}\0{place.path}\0{place.offset}"
            yield f"{where}\0{place.size_bytes}\0{shards[file]}\n"

    def _find(self, row: int) -> tuple[int, int]:
        if not 0 <= row < len(self):
            raise IndexError(row)
        number = max(i for i, start in enumerate(self._starts[:-1]) if start <= row)
        return number, row - self._starts[number]


def _size(source: FolderSource, index: int) -> int:
    try:
        return source.encoded_bytes(index)
    except OSError:
        return -1


def _state(file: str) -> str:
    try:
        status = os.stat(file)
    except OSError:
        return "missing"
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
