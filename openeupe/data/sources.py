"""Interface of image sources, and opening them from a config."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from openeupe.data.config import SourceConfig
from openeupe.data.folders import FolderSource
from openeupe.data.huggingface import HuggingFaceSource
from openeupe.data.manifest import ManifestSource
from openeupe.data.shards import ShardSource, patterns
from openeupe.data.weighted import Weights
from openeupe.errors import InputError


class Source(Protocol):
    """A fixed, ordered set of images. It can be sent to loader workers."""

    @property
    def weights(self) -> Weights | None:
        """Sampling weight of each image; None: uniform sampling."""
        ...

    def __len__(self) -> int: ...

    def read(self, index: int, min_resolution: int | None = None) -> Image.Image:
        """RGB image `index`; see `decode` for `min_resolution`. Raises `BrokenImage`."""
        ...

    def encoded(self, index: int) -> bytes:
        """The encoded bytes of an image. Raises `OSError`."""
        ...

    def encoded_bytes(self, index: int) -> int:
        """Bytes that are read for image `index`. Raises `OSError`."""
        ...

    def sizes(self) -> NDArray[np.int64]:
        """Bytes of every encoded image, without reading them. -1 where a file is missing."""
        ...

    def listing(self) -> Iterator[tuple[str, int]]:
        """Relative names and sizes of all files."""
        ...

    @property
    def fingerprint(self) -> str:
        """Identity of the images by their contents: every file is read once."""
        ...

    def name(self, index: int) -> str:
        """Name of image `index` in messages."""
        ...


def open_source(config: SourceConfig, part: Literal["train", "heldout"] = "train") -> Source:
    """Open the source of a config. It must have images.

    Args:
        part: with `config.heldout`, the images to train on or those held out.

    Raises:
        InputError: in one line, if the path is missing or does not fit `kind`.
    """
    kind = _kind(config.path) if config.kind == "auto" else config.kind
    if config.heldout and kind != "folder":
        raise InputError(f"data path {config.path}: heldout works for folders, not for {kind}")
    if kind != "huggingface" and config.column != SourceConfig.model_fields["column"].default:
        raise InputError(
            f"data path {config.path}: column works for Hugging Face datasets, not for {kind}: "
            "leave it out"
        )
    if kind == "shards":
        return ShardSource(config.path)
    if kind == "huggingface":
        return HuggingFaceSource(config.path, config.column)
    if kind == "manifest":
        return ManifestSource(config.path)
    return FolderSource(config.path, heldout=config.heldout, part=part)


def at_hand(config: SourceConfig) -> bool:
    """Whether a source's path exists; a pattern may match shards."""
    if os.path.exists(Path(config.path).expanduser()):
        return True
    return any(map(glob.glob, patterns(config.path)))


def source_identity(config: SourceConfig) -> str:
    """Identity of a source's images by their contents. Both parts of `heldout` together.

    Every file is read once: as long as an epoch without training.
    """
    return open_source(config.model_copy(update={"heldout": 0.0})).fingerprint


def mean_bytes(source: Source, sample: int = 256) -> float:
    """Mean bytes of an image on disk, estimated from evenly spaced ones."""
    indices = range(0, len(source), max(1, len(source) // sample))
    total = 0
    for index in indices:
        with suppress(OSError):  # missing
            total += source.encoded_bytes(index)
    return total / len(indices)


def _kind(path: str) -> str:
    where = Path(path).expanduser()
    if where.is_dir():
        if (where / "dataset_info.json").is_file() or (where / "dataset_dict.json").is_file():
            return "huggingface"
        return "shards" if any(where.glob("*.tar")) else "folder"
    if path.endswith(".tar") or any(sign in path for sign in "{*?["):
        return "shards"
    if path.endswith(".parquet"):
        return "manifest"
    if os.path.exists(where):
        raise InputError(
            f"data path {path} is a file: name a folder of images, a .tar shard, a pattern, or a "
            ".parquet manifest"
        )
    raise InputError(f"data path {path} does not exist: check the path")
