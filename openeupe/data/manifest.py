"""Images of a manifest of `openeupe curate`, sampled by weight."""

from __future__ import annotations

import errno
import json
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from openeupe.data.decode import BrokenImage, decode, read_encoded
from openeupe.data.shards import OpenShards
from openeupe.data.string_array import Names, printable
from openeupe.data.weighted import Weights
from openeupe.errors import InputError
from openeupe.identity import facts_identity, file_identity
from openeupe.limits import IMAGE_BYTES, IMAGE_WEIGHT

VERSION = 1
METADATA = b"openeupe"  # key of the JSON in the Parquet file
_COLUMNS = ["source", "path", "offset", "size_bytes", "weight"]
_MOST_ROOTS = 2**15  # their numbers are 16 bits wide
_CHECKED = 64  # files looked for when a manifest is opened


class ManifestSource:
    """The images of a manifest, in its order. About 30 bytes per image and its path.

    Args:
        path: a Parquet file that `openeupe curate` wrote.

    Attributes:
        weights: sampling weight of each image.

    Raises:
        InputError: if pyarrow is missing, the file is no manifest or another version's, it has
            no image, or its images are missing.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        file, about = open_manifest(path)
        self.roots = roots(path, about)
        roots_, offsets, sizes, weights = array("h"), array("q"), array("q"), array("f")

        def paths() -> Iterator[str]:
            for number, row in enumerate(_rows(path, file)):
                if wrong := _wrong(row, len(self.roots)):
                    raise InputError(f"manifest {path}: row {number}: {wrong}: curate again")
                root, name, offset, size, weight = row
                if weight > 0:
                    roots_.append(root)
                    offsets.append(-1 if offset is None else offset)
                    sizes.append(size)
                    weights.append(weight)
                    yield name

        self._paths = Names(paths())
        if not len(self):
            raise InputError(f"manifest {path} has no images: curate again with other settings")
        self._roots = np.frombuffer(roots_, dtype=np.int16)
        self._offsets = np.frombuffer(offsets, dtype=np.int64)
        self._sizes = np.frombuffer(sizes, dtype=np.int64)
        self.weights = Weights(np.frombuffer(weights, dtype=np.float32))
        self._shards = OpenShards()
        self._check_places()

    def __len__(self) -> int:
        return len(self._paths)

    def read(self, index: int, min_resolution: int | None = None) -> Image.Image:
        """RGB image `index`; see `decode` for `min_resolution`. Raises `BrokenImage`."""
        try:
            encoded = self.encoded(index)
        except OSError as error:
            raise BrokenImage(f"{self.name(index)}: {error.strerror or error}") from error
        return decode(encoded, self.name(index), min_resolution)

    def encoded(self, index: int) -> bytes:
        """The file's or member's bytes. Raises `OSError`."""
        file, offset, size = self._file(index), int(self._offsets[index]), int(self._sizes[index])
        if offset >= 0:
            return self._shards.read(str(file), offset, size)
        encoded = read_encoded(file)
        if len(encoded) != size:  # not the image that was compared with evaluation images
            raise OSError(errno.EIO, "it has another size than when it was curated")
        return encoded

    def sizes(self) -> NDArray[np.int64]:
        """Bytes of every file or member."""
        return self._sizes

    def listing(self) -> Iterator[tuple[str, int]]:
        """The manifest by its contents, and its files by name and size."""
        yield file_identity(Path(self.path).expanduser()), len(self)
        last = None
        for index in range(len(self)):
            file = self._file(index)
            if file != last:  # rows of one shard follow each other
                yield self._paths[index], file.stat().st_size if file.is_file() else -1
            last = file

    @property
    def fingerprint(self) -> str:
        """Identity of the manifest and of the contents of its files."""
        images = [file_identity(file) for file in self.files()]
        return facts_identity(file_identity(Path(self.path).expanduser()), images)

    def places(self) -> Iterator[str]:
        """Absolute path of each image's file or shard. With `/`, and without links to the roots."""
        roots = [root.resolve().as_posix().rstrip("/") for root in self.roots]
        return (f"{roots[self._roots[i]]}/{self._paths[i]}" for i in range(len(self)))

    def encoded_bytes(self, index: int) -> int:
        """Size of the file or member."""
        return int(self._sizes[index])

    def name(self, index: int) -> str:
        """The file's path, for messages; of a shard also where in it."""
        offset = int(self._offsets[index])
        place = "" if offset < 0 else f", byte {offset}"
        return printable(f"{self._file(index)}{place}")

    def files(self) -> list[Path]:
        """The files that hold the images, each once, in the manifest's order."""
        return list(dict.fromkeys(self._file(index) for index in range(len(self))))

    def _file(self, index: int) -> Path:
        return self.roots[self._roots[index]] / self._paths[index]

    def _check_places(self) -> None:
        for index in range(0, len(self), max(1, len(self) // _CHECKED)):
            file, offset = self._file(index), int(self._offsets[index])
            try:
                size = file.stat().st_size
            except OSError:
                size = -1
            expected = int(self._sizes[index])
            if not (size == expected if offset < 0 else size >= offset + expected):
                changed = "is not there" if size < 0 else "has another size"
                raise InputError(
                    f"manifest {self.path}: {printable(str(file))} {changed}: the images moved or "
                    "changed since; put them back or curate again"
                )


def _rows(path: str | Path, file: Any) -> Iterator[tuple[Any, ...]]:
    """The rows of an open manifest, as they stand in it."""
    import pyarrow as pa

    try:
        for batch in file.iter_batches(columns=_COLUMNS):
            rows = batch.to_pydict()
            yield from zip(*(rows[column] for column in _COLUMNS), strict=True)
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise InputError(f"manifest {path} is damaged ({error}): curate again") from None


def _wrong(row: tuple[object, ...], roots: int) -> str:
    """Report what is wrong in a row; empty if nothing is."""
    root, name, offset, size, weight = row
    if not isinstance(weight, int | float) or not 0 <= weight <= IMAGE_WEIGHT:
        return f"{name} has weight {weight}, which is not between 0 and {IMAGE_WEIGHT:g}"
    if weight == 0:  # dropped: it may be a file that cannot be read
        return ""
    if type(root) is not int or not 0 <= root < roots:
        return f"source {root} is not among the {roots} of the manifest"
    if not isinstance(name, str) or not name or "\0" in name:
        return f"path {name!r} is no name of a file"
    if offset is not None and (type(offset) is not int or offset < 0):
        return f"offset {offset} is no place in a file"
    if type(size) is not int or not 0 <= size <= IMAGE_BYTES:
        return f"size_bytes {size} is not between 0 and {IMAGE_BYTES}"
    return ""


def open_manifest(path: str | Path) -> tuple[Any, dict[str, Any]]:
    """Open the Parquet file (pyarrow's `ParquetFile`) of a manifest, with its metadata.

    Raises:
        InputError: if pyarrow is missing, or the file is no manifest of this version.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise InputError(f"manifest {path} needs pyarrow: pip install 'openeupe[curate]'") from None
    file_path = Path(path).expanduser()
    if not file_path.is_file():
        raise InputError(f"manifest {path} does not exist: check the path")
    try:
        file = pq.ParquetFile(file_path)
        about = json.loads(file.schema_arrow.metadata[METADATA])
        version = about["version"]
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError, RecursionError):
        raise InputError(
            f"{path} is not a manifest that openeupe curate wrote: check the path"
        ) from None
    if type(version) is not int or version != VERSION:
        raise InputError(
            f"manifest {path} is of version {version}, this program reads {VERSION}: curate again"
        )
    listed = about.get("roots")
    if not isinstance(listed, list) or not all(
        isinstance(root, str) and "\0" not in root for root in listed
    ):
        raise InputError(f"manifest {path}: its roots are no list of folders: curate again")
    if len(listed) > _MOST_ROOTS:
        raise InputError(f"manifest {path} has more than {_MOST_ROOTS} roots: curate again")
    return file, about


def roots(path: str | Path, about: dict[str, Any]) -> list[Path]:
    """Root folders of a manifest's paths, resolved from the manifest's folder."""
    return [Path(path).expanduser().parent / root for root in about["roots"]]
