"""Embeddings of images by any encoder, cached on disk."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor
from torch.nn import functional as F

from openeupe.curation.image_pool import PART, ImagePool
from openeupe.data import View
from openeupe.data.ahead import batched_ahead
from openeupe.distributed import Processes
from openeupe.encoders import Encoder, evaluating
from openeupe.files import durable
from openeupe.identity import arrays_identity, encoder_identity, facts_identity
from openeupe.progress import Progress

BATCH = 32  # images that the encoder sees at once
Vectors = NDArray[np.float16]


def identity(encoder: Encoder, resolution: int) -> str:
    """Identity of an encoder's vectors of images squashed to `resolution` pixels."""
    return facts_identity(encoder_identity(encoder), resolution)


class Embeddings:
    """Unit-length class tokens of some images of a pool, in float16.

    A safetensors file for each part of the pool; a file that an earlier call wrote is used for
    the images that it holds, so that another threshold only adds missing ones. The whole image
    is squashed to a square, so that its borders are included.

    Args:
        rows: which images of the pool have vectors, ascending.
        digests: `[len(image_pool), 2]` uint64 of all images.
    """

    def __init__(
        self,
        folder: Path,
        image_pool: ImagePool,
        rows: NDArray[np.int64],
        digests: NDArray[np.uint64],
        encoder: Encoder,
        resolution: int,
    ) -> None:
        self.folder, self.image_pool, self.encoder, self.resolution = (
            folder,
            image_pool,
            encoder,
            resolution,
        )
        self.rows, self.digests = rows, digests
        self.identity = identity(encoder, resolution)
        self._stored = rows

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def width(self) -> int:
        """Numbers of a vector."""
        return self.encoder.cls_dim

    @property
    def about(self) -> dict[str, object]:
        """The encoder of the vectors."""
        return {"name": self.encoder.name, "identity": self.identity, "resolution": self.resolution}

    def only(self, rows: NDArray[np.int64]) -> Embeddings:
        """The same vectors for a subset of the rows."""
        some = copy.copy(self)
        some.rows = rows
        return some

    def make(self, here: Processes, workers: int, progress: Progress) -> None:
        """Compute missing vectors, and wait for all processes."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with progress.task(f"{self.encoder.name} looks", len(self)) as task:
            for part in here.mine(self.image_pool.parts):
                rows = self._of(part, self._stored)
                digests = self.digests[rows]
                old = self._read(part, verify=True)
                if old is None or not np.array_equal(old[0], digests):
                    vectors = self._vectors(rows, digests, old, workers)
                    tensors: dict[str, NDArray[Any]] = {"digests": digests, "vectors": vectors}
                    with durable(self._file(part)) as partial:
                        contents = arrays_identity(digests, vectors)
                        # One entry: safetensors writes several in any order.
                        save_file(tensors, partial, {"identity": f"{self.identity} {contents}"})
                task.advance(len(rows))
            here.wait()

    def blocks(self) -> Iterator[tuple[int, Vectors]]:
        """(first place, vectors `[n, D]`) part after part; places count within `rows`."""
        start = 0
        for part in range(self.image_pool.parts):
            rows = self._of(part, self.rows)
            if len(rows):
                yield start, self._load(part, rows)
                start += len(rows)

    def take(self, places: NDArray[np.int64]) -> NDArray[np.float32]:
        """Vectors `[n, D]` float32 of these places within `rows`, in the given order."""
        found = np.empty((len(places), self.width), np.float32)
        rows = self.rows[places]
        parts = rows // PART
        for part in np.unique(parts):
            here = parts == part
            found[here] = self._load(int(part), rows[here])
        return found

    def _of(self, part: int, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those of `rows` that are of the part."""
        return rows[slice(*np.searchsorted(rows, (part * PART, (part + 1) * PART)))]

    def _load(self, part: int, rows: NDArray[np.int64]) -> Vectors:
        """Vectors of some rows of a part."""
        found = self._read(part)
        assert found is not None, "make() comes first"
        return found[1][np.searchsorted(self._of(part, self._stored), rows)]

    def _file(self, part: int) -> Path:
        return self.folder / f"{part:06d}.safetensors"

    def _read(
        self, part: int, *, verify: bool = False
    ) -> tuple[NDArray[np.uint64], Vectors] | None:
        """Digests and vectors of a part. None where they are missing, damaged or another's.

        verify: compare their bytes with what was written.
        """
        try:
            with safe_open(self._file(part), "np") as file:
                written, _, contents = (file.metadata() or {}).get("identity", "").partition(" ")
                if written != self.identity:
                    return None
                digests, vectors = file.get_tensor("digests"), file.get_tensor("vectors")
        except (OSError, SafetensorError):
            return None
        if verify and contents != arrays_identity(digests, vectors):
            return None
        return digests, vectors

    def _vectors(
        self,
        rows: NDArray[np.int64],
        digests: NDArray[np.uint64],
        old: tuple[NDArray[np.uint64], Vectors] | None,
        workers: int,
    ) -> Vectors:
        vectors = np.zeros((len(rows), self.width), np.float16)
        known = {} if old is None else {d.tobytes(): v for d, v in zip(*old, strict=True)}
        todo = []
        for place, one in enumerate(digests):
            if (vector := known.get(one.tobytes())) is not None:
                vectors[place] = vector
            else:
                todo.append(place)
        done = 0
        view = View(self.resolution, self.resolution, "squash")

        def read(place: int) -> Tensor:
            return view.image(
                self.image_pool.read_again(int(rows[place]), self.digests, self.resolution)
            )

        for views in batched_ahead(read, todo, BATCH, workers):
            found = self._encode(torch.stack(views))
            vectors[todo[done : done + len(views)]] = found
            done += len(views)
        return vectors

    def _encode(self, views: Tensor) -> Vectors:
        device = self.encoder.mean.device
        with torch.inference_mode(), evaluating(self.encoder):
            cls = self.encoder(views.to(device, non_blocking=True).float() / 255).cls
        return F.normalize(cls.float(), dim=1).half().cpu().numpy()
