"""Read every image once: size, digest and perceptual hash."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from openeupe.curation.hashing import Hashes, digest, faces, perceptual_hashes
from openeupe.curation.image_pool import ImagePool
from openeupe.data import BrokenImage
from openeupe.data.decode import opened, upright
from openeupe.data.string_array import printable
from openeupe.distributed import Processes
from openeupe.files import durable
from openeupe.progress import Progress

_VERSION = 2  # of the scan's format: older scans are repeated
_HASHED = 96  # pixels that a JPEG may be decoded at for its hash: more than the hash looks at
_SCHEMA = pa.schema(
    [
        ("source", pa.int16()),
        ("path", pa.string()),
        ("offset", pa.int64()),
        ("size_bytes", pa.int64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("format", pa.string()),
        ("digest", pa.binary(16)),
        ("hash", pa.uint64()),
        ("mirrored", pa.uint64()),
        ("flipped", pa.uint64()),
        ("turned", pa.uint64()),
    ]
)


@dataclass(frozen=True)
class Scanned:
    """Scan results of all images; arrays of one entry each.

    width, height: int32 pixels; 0 where the image cannot be read.
    size_bytes: int64. digest: `[N, 2]` uint64. hash, mirrored, flipped, turned: uint64, 0 for
    none; see `Hashes`.
    """

    width: NDArray[np.int32]
    height: NDArray[np.int32]
    size_bytes: NDArray[np.int64]
    digest: NDArray[np.uint64]
    hash: NDArray[np.uint64]
    mirrored: NDArray[np.uint64]
    flipped: NDArray[np.uint64]
    turned: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.width)

    def faces(self, rows: NDArray[np.int64], mirrors: bool) -> list[NDArray[np.uint64]]:
        """Hashes of these rows at each orientation of a copy: `[R]` each."""
        plain, mirrored = self.hash[rows], self.mirrored[rows]
        return faces(plain, mirrored, self.flipped[rows], self.turned[rows], mirrors)


def scan(
    image_pool: ImagePool, folder: Path, here: Processes, workers: int, progress: Progress
) -> Scanned:
    """Read every image of the pool. Unchanged images of an earlier call are not read again.

    Args:
        folder: gets a Parquet file for each part of the image pool.
        here: which parts this process reads; all of them are waited for.
        workers: threads.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(workers) as pool, progress.task("reading", len(image_pool)) as task:
        for part in here.mine(image_pool.parts):
            listing = f"{_VERSION} {image_pool.listing(part)}"
            if _listing(folder, part, len(image_pool.rows(part))) != listing:
                rows = list(pool.map(lambda row: _look(image_pool, row), image_pool.rows(part)))
                if any(row.get("failed") for row in rows):
                    listing = ""  # bytes could not be read, perhaps temporarily: read again
                table = pa.Table.from_pylist(rows, _SCHEMA.with_metadata({"listing": listing}))
                with durable(file_of(folder, part)) as partial:
                    pq.write_table(table, partial, write_page_checksum=True)
            task.advance(len(image_pool.rows(part)))
        here.wait()
    return _gather(image_pool, folder)


def readable(scanned: Scanned) -> NDArray[np.int64]:
    """Rows of the images that could be decoded, ascending."""
    return np.flatnonzero(scanned.width > 0)


def file_of(folder: Path, part: int) -> Path:
    """The Parquet file of a part."""
    return folder / f"{part:06d}.parquet"


def _listing(folder: Path, part: int, count: int) -> str | None:
    """Listing that a part was read from. None if it is missing or damaged."""
    try:
        table = pq.read_table(file_of(folder, part), page_checksum_verification=True)
    except (OSError, pa.ArrowException):
        return None
    whole = len(table) == count and table.schema.equals(_SCHEMA)
    return (table.schema.metadata or {}).get(b"listing", b"").decode() if whole else None


def _look(image_pool: ImagePool, row: int) -> dict[str, Any]:
    place = image_pool.place(row)
    path = printable(place.path)
    known: dict[str, Any] = {
        "source": place.source,
        "path": path,
        "offset": place.offset,
        "size_bytes": place.size_bytes,
    }
    size, hashes, kind = (0, 0), Hashes(0, 0, 0, 0), None
    try:
        if path != place.path:
            raise BrokenImage(f"{path}: its name is not valid Unicode, no manifest can hold it")
        encoded = image_pool.encoded(row)
        known["digest"] = digest(encoded)
        with opened(encoded) as image:
            size, kind = image.size, image.format
            hashes = perceptual_hashes(upright(image, _HASHED, gray=True))
    except MemoryError:
        raise
    except (BrokenImage, Exception):  # Pillow's readers raise nearly anything on damaged bytes
        size = (0, 0)
        known["failed"] = path == place.path and "digest" not in known
        known.setdefault("digest", bytes(16))
    return known | {
        "width": size[0],
        "height": size[1],
        "format": kind,
        "hash": hashes.plain,
        "mirrored": hashes.mirrored,
        "flipped": hashes.flipped,
        "turned": hashes.turned,
    }


def _gather(image_pool: ImagePool, folder: Path) -> Scanned:
    """Part after part into arrays that are made once: names stay on disk."""
    count = len(image_pool)
    found = Scanned(
        np.empty(count, np.int32),
        np.empty(count, np.int32),
        np.empty(count, np.int64),
        np.empty((count, 2), np.uint64),
        *(np.empty(count, np.uint64) for _ in range(4)),
    )
    columns = ["width", "height", "size_bytes", "digest", "hash", "mirrored", "flipped", "turned"]
    for part in range(image_pool.parts):
        rows = image_pool.rows(part)
        table = pq.read_table(file_of(folder, part), columns=columns)
        for name in columns:
            column = table.column(name).combine_chunks()
            if name == "digest":
                values = np.frombuffer(b"".join(column.to_pylist()), np.uint64).reshape(-1, 2)
            else:
                values = column.to_numpy()
            getattr(found, name)[rows.start : rows.stop] = values
    return found
