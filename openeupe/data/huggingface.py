"""A Hugging Face dataset that was saved to disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from openeupe.data.decode import BrokenImage, decode, read_encoded
from openeupe.errors import InputError
from openeupe.identity import files_identity


class HuggingFaceSource:
    """The images of one split that `Dataset.save_to_disk` wrote.

    Args:
        path: the folder of the split (one that holds `dataset_info.json`).
        column: the column of type `datasets.Image`.

    Raises:
        InputError: if `datasets` is not installed, the folder is no saved split, it is empty, or
            the column is missing or of another type.
    """

    weights = None

    def __init__(self, path: str | Path, column: str = "image") -> None:
        try:
            import datasets
        except ImportError as error:
            raise InputError(
                f"data path {path} is a Hugging Face dataset, which needs the datasets library: "
                "pip install 'openeupe[hf]'"
            ) from error
        self.path = str(path)
        self.folder = folder = Path(path).expanduser()
        if not folder.is_dir():
            raise InputError(f"data path {path} is not a folder: check the path")
        try:
            rows = datasets.load_from_disk(str(folder))
        except Exception as error:  # Arrow and JSON errors of many types
            raise InputError(
                f"data path {path} is not a dataset written by save_to_disk, or has no rows: "
                "check the path"
            ) from error
        if isinstance(rows, datasets.DatasetDict):
            splits = ", ".join(f"{path}/{split}" for split in rows)
            raise InputError(f"data path {path} holds several splits: name one of {splits}")
        if column not in rows.column_names:
            raise InputError(
                f"data path {path} has no column {column}: "
                f"set column to one of {', '.join(rows.column_names)}"
            )
        if not isinstance(rows.features[column], datasets.Image):
            raise InputError(
                f"column {column} of data path {path} does not hold images: "
                "cast it with cast_column(..., datasets.Image()) or name another"
            )
        if not len(rows):
            raise InputError(f"data path {path} has no rows: name another")
        # Undecoded, so that every source reads images by the same rules.
        self._rows = rows.select_columns([column]).cast_column(column, datasets.Image(decode=False))
        self._column = column

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, index: int, min_resolution: int | None = None) -> Image.Image:
        """RGB image `index`; see `decode` for `min_resolution`. Raises `BrokenImage`."""
        value = self._rows[index][self._column]
        if value is None or (value["bytes"] is None and value["path"] is None):
            raise BrokenImage(f"{self.name(index)}: the row has no image")
        encoded = value["bytes"] if value["bytes"] is not None else Path(value["path"])
        return decode(encoded, self.name(index), min_resolution)

    def encoded(self, index: int) -> bytes:
        """The row's encoded image. Raises `OSError`."""
        value = self._rows[index][self._column]
        if value is None or (value["bytes"] is None and value["path"] is None):
            raise FileNotFoundError(f"{self.name(index)}: the row has no image")
        found: bytes | None = value["bytes"]
        return read_encoded(Path(value["path"])) if found is None else found

    def sizes(self) -> NDArray[np.int64]:
        """Bytes of every row's encoded image. -1 where its file is missing."""
        import pyarrow.compute as pc

        images = self._rows.with_format("arrow")[:][self._column]
        lengths = pc.binary_length(pc.struct_field(images, "bytes"))
        sizes: NDArray[np.int64] = pc.fill_null(lengths, -1).to_numpy().astype(np.int64)
        for index in np.flatnonzero(sizes < 0).tolist():
            with suppress(OSError):
                sizes[index] = self.encoded_bytes(index)
        return sizes

    def listing(self) -> Iterator[tuple[str, int]]:
        """The Arrow files that hold the rows, by name and size."""
        for file in self._files():
            yield file.name, file.stat().st_size

    @property
    def fingerprint(self) -> str:
        """Identity of the Arrow files of the rows, by names and contents."""
        return files_identity(self.folder, self._files())

    def _files(self) -> list[Path]:
        # "cache-": what the datasets library leaves next to them.
        files = sorted(self.folder.glob("*.arrow"))
        return [file for file in files if not file.name.startswith("cache-")]

    def encoded_bytes(self, index: int) -> int:
        """Size of the row's encoded image or image file. Raises `OSError`."""
        value = self._rows[index][self._column]
        if value is None or (value["bytes"] is None and value["path"] is None):
            return 0
        found: bytes | None = value["bytes"]
        return os.stat(value["path"]).st_size if found is None else len(found)

    def name(self, index: int) -> str:
        """`path, row index`, for messages."""
        return f"{self.path}, row {index}"
