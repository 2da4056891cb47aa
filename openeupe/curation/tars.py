"""Write the remaining images as tar shards with a manifest."""

from __future__ import annotations

import io
import json
import re
import tarfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from openeupe.curation.hashing import digest
from openeupe.curation.manifest_writer import SCHEMA
from openeupe.data.manifest import METADATA, open_manifest, roots
from openeupe.data.shards import OpenShards
from openeupe.errors import InputError
from openeupe.placing import partial_folder, take_place
from openeupe.progress import LOGGED, Progress

_ENDINGS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "BMP": "bmp", "TIFF": "tif"}
MANIFEST = "manifest.parquet"
_UNFINISHED = ".manifest.parquet.writing"


def write_shards(
    manifest: Path, folder: Path, size_bytes: int, progress: Progress = LOGGED
) -> Path:
    """Copy the remaining images, unchanged, into `folder/00000.tar` and so on.

    The folder can be moved: its manifest names shards next to it. It is always written
    completely, in another place, and replaces earlier shards.

    Args:
        size_bytes: of a shard at most, unless one image alone is larger.

    Returns:
        The new manifest.

    Raises:
        InputError: if the folder holds anything else, or images of the manifest; or if an image
            cannot be read or is another one than was curated, or a shard cannot be written.
    """
    file, about = open_manifest(manifest)
    places = roots(manifest, about)
    if folder.resolve() in _folders(file, places):
        raise InputError(
            f"the images are in {folder}, which the new shards would replace: choose another "
            "folder (`out`)"
        )
    _check_ours(folder)
    try:
        with partial_folder(folder, _own_names) as part:
            _write(file, about, places, part, size_bytes, progress)
            take_place(part, folder, _own_names)
    except OSError as error:
        raise InputError(
            f"{folder} cannot be written ({error.strerror}): free space and curate again"
        ) from None
    return folder / MANIFEST


def _folders(file: pq.ParquetFile, places: list[Path]) -> set[Path]:
    """Folders of all shards that a manifest names."""
    found: set[tuple[int, str]] = set()
    for batch in file.iter_batches(columns=["source", "path", "offset"]):
        table = pa.table(batch).filter(pc.is_valid(pc.field("offset")))
        pairs = table.select(["source", "path"]).group_by(["source", "path"]).aggregate([])
        found |= {(row["source"], row["path"]) for row in pairs.to_pylist()}
    return {(places[source] / path).resolve().parent for source, path in found}


def _check_ours(folder: Path) -> None:
    """Raise `InputError` unless the folder is missing, empty, or written by `write_shards`."""
    if not folder.is_dir():
        if folder.exists():
            raise InputError(f"{folder} is a file: choose another folder (`out`)")
        return
    there = {path.name for path in folder.iterdir()}
    if foreign := sorted(there - _own_names(folder)):
        raise InputError(
            f"{folder} holds other files ({foreign[0]}): choose another folder (`out`)"
        )


def _own_names(folder: Path) -> set[str]:
    """Names of the files in a folder that `write_shards` made."""
    there = {path.name for path in folder.iterdir()}
    ours = {MANIFEST, _UNFINISHED}
    if MANIFEST in there:
        with suppress(InputError, OSError, pa.ArrowException, KeyError):
            file, _ = open_manifest(folder / MANIFEST)
            ours |= set(file.read(columns=["path"]).column("path").to_pylist())
    elif (
        _UNFINISHED in there
    ):  # an earlier version was interrupted; it had emptied the folder first
        ours |= {name for name in there if re.fullmatch(r"\d{5}\.tar", name)}
    return ours


def _write(
    file: pq.ParquetFile,
    about: dict[str, Any],
    places: list[Path],
    folder: Path,
    size_bytes: int,
    progress: Progress,
) -> None:
    shards = _Shards(folder, size_bytes)
    files = OpenShards()
    rows: list[dict[str, Any]] = []
    schema = SCHEMA.with_metadata({METADATA: json.dumps({**about, "roots": ["."]})})
    number = 0
    with (
        progress.task("writing shards", about["kept"]) as task,
        pq.ParquetWriter(folder / MANIFEST, schema, compression="zstd") as writer,
    ):
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
                if digest(encoded) != row["digest"]:
                    raise InputError(f"{path} changed since it was curated: curate again")
                name = f"{number:09d}.{_ENDINGS.get(row['format'], 'jpg')}"
                shard, offset = shards.add(name, encoded)
                row |= {"source": 0, "path": shard, "offset": offset, "of": None}
                number += 1
                task.advance()
            writer.write_table(pa.Table.from_pylist(rows, schema))
    shards.close()


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
