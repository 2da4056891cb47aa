"""The kept images as tar shards of a limited size, with a manifest of their own beside them."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.progress import Progress

from openeupe.curate.manifest import SCHEMA
from openeupe.data.manifest import METADATA, open_manifest, roots
from openeupe.data.shards import OpenShards
from openeupe.errors import InputError

_ENDINGS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "BMP": "bmp", "TIFF": "tif"}
MANIFEST = "manifest.parquet"


def write_shards(manifest: Path, folder: Path, size_bytes: int, progress: Progress) -> Path:
    """Copy the kept images, as they are, into `folder/00000.tar` and so on.

    The folder can be moved: its manifest names shards beside it. Written again from the start if
    it was cut off; without a manifest the folder is not finished.

    Args:
        size_bytes: of a shard at most, unless one image alone is larger.

    Returns the new manifest.
    """
    file, about = open_manifest(manifest)
    places = roots(manifest, about)
    folder.mkdir(parents=True, exist_ok=True)
    foreign = [f.name for f in folder.iterdir() if f.name != MANIFEST and f.suffix != ".tar"]
    if foreign:
        raise InputError(f"{folder} holds other files ({foreign[0]}): name another --out")
    for old in folder.iterdir():
        old.unlink()
    task = progress.add_task("writing shards", total=about["kept"])
    shards = _Shards(folder, size_bytes)
    files = OpenShards()
    rows: list[dict[str, Any]] = []
    partial = folder / f".{MANIFEST}.writing"
    schema = SCHEMA.with_metadata({METADATA: json.dumps({**about, "roots": ["."]})})
    number = 0
    with pq.ParquetWriter(partial, schema, compression="zstd") as writer:
        for batch in file.iter_batches(batch_size=4096):
            rows = [row for row in batch.to_pylist() if row["weight"] > 0]
            for row in rows:
                path = places[row["source"]] / row["path"]
                try:
                    if row["offset"] is None:
                        encoded = path.read_bytes()
                    else:
                        encoded = files.read(str(path), row["offset"], row["size_bytes"])
                except OSError as error:
                    raise InputError(
                        f"{path} cannot be read any more ({error.strerror}): curate again"
                    ) from None
                name = f"{number:09d}.{_ENDINGS.get(row['format'], 'jpg')}"
                shard, offset = shards.add(name, encoded)
                row |= {"source": 0, "path": shard, "offset": offset, "of": None}
                number += 1
                progress.advance(task)
            writer.write_table(pa.Table.from_pylist(rows, schema))
    shards.close()
    progress.remove_task(task)
    partial.replace(folder / MANIFEST)
    return folder / MANIFEST


class _Shards:
    def __init__(self, folder: Path, size_bytes: int) -> None:
        self.folder, self.size_bytes = folder, size_bytes
        self._number = -1
        self._archive: tarfile.TarFile | None = None

    def add(self, name: str, content: bytes) -> tuple[str, int]:
        """Name of the shard that took it, and where its first byte is."""
        if self._archive is None or self._size_with(len(content)) > self.size_bytes:
            self.close()
            self._number += 1
            self._archive = tarfile.open(  # noqa: SIM115 (closed in turn)
                self.folder / self.name, "w", format=tarfile.USTAR_FORMAT
            )
        offset = self._archive.offset + tarfile.BLOCKSIZE
        header = tarfile.TarInfo(name)
        header.size = len(content)
        self._archive.addfile(header, io.BytesIO(content))
        return self.name, int(offset)

    def _size_with(self, more: int) -> int:
        """Of the open shard, with a member of that size and the end of a tar file."""
        assert self._archive is not None
        end = self._archive.offset + _rounded(more, tarfile.BLOCKSIZE) + 3 * tarfile.BLOCKSIZE
        return _rounded(end, tarfile.RECORDSIZE)

    @property
    def name(self) -> str:
        return f"{self._number:05d}.tar"

    def close(self) -> None:
        if self._archive is not None:
            self._archive.close()
            self._archive = None


def _rounded(size: int, to: int) -> int:
    return -(-size // to) * to
