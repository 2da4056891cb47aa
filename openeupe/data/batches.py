"""Batches of images as a pure function of the step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from openeupe.data.augment import Augment
from openeupe.data.batch_augment import batch_draws
from openeupe.data.broken import BrokenImages
from openeupe.data.config import DataConfig
from openeupe.data.decode import BrokenImage
from openeupe.data.heldout import open_sources
from openeupe.data.recorded import content
from openeupe.data.repeated import RepeatedViews, contents
from openeupe.data.sources import Source
from openeupe.data.workers import loaded
from openeupe.errors import InputError
from openeupe.seeds import derive_seed, shuffled

_ATTEMPTS = 20  # images tried for one place of a batch


class Batch(NamedTuple):
    """The part of one step's batch that a rank loads.

    step: number of the step.
    images: `[batch_size / world_size, 3, S, S]` uint8 RGB.
    source: which of `DataConfig.sources` all images of the step come from.
    broken: names of the images that could not be read and were replaced.
    cached: cached tensors of these views, by name, one row per image; empty without a cache.
    draws: float32 `[n, 10]` for `BatchAugment`, where the augmentation is left to the device.
    """

    step: int
    images: Tensor
    source: int
    broken: list[str]
    cached: dict[str, Tensor]
    draws: Tensor | None


class Batches:
    """Iterates over the batches of the steps `first_step` to `last_step - 1`.

    A batch is a pure function of (seed, stream, step, batch_size, resolution, config's data and
    augmentation). It does not depend on the number of workers or on earlier batches, so
    resuming needs no loader state. A rank makes its own slice of the same global
    batch; the slices of all ranks, in order, are the batch of a single process.

    The source of a step is drawn with the sources' weights (paper 3.4: homogeneous batches).
    Within a source every image comes once before any comes again, in another order each epoch,
    for a source that fills all steps; the steps that go to other sources are left out of it.
    A source with weights has epochs of the same length, in which images come by weight.

    Args:
        batch_size: images of a step over all ranks; a multiple of `world_size`.
        resolution: of the views, in pixels: the largest size of the pyramid.
        stream: another name gives other draws (such as "train" and "statistics").
        sources: `config.sources`, already open; avoids indexing them again.
        repeated: if given, images come in these views, in turn (see `RepeatedViews.number`), and
            not in new ones.
        teacher_cache: view numbers of `repeated` -> tensors by name, called in the loader
            processes. `contents` (see `RepeatedViews`) must be those of the shown images.

    Attributes:
        broken: counts the unreadable images of the batches so far.

    Raises:
        InputError: at construction, if a source cannot be opened or a number does not fit; while
            iterating, if too many images cannot be read.
    """

    def __init__(
        self,
        config: DataConfig,
        batch_size: int,
        resolution: int,
        seed: int,
        first_step: int,
        last_step: int,
        stream: str = "train",
        *,
        rank: int = 0,
        world_size: int = 1,
        sources: Sequence[Source] | None = None,
        repeated: RepeatedViews | None = None,
        teacher_cache: Callable[[list[int]], dict[str, Tensor]] | None = None,
    ) -> None:
        if batch_size < 1 or resolution < 1:
            raise InputError(
                f"batch size {batch_size} and resolution {resolution} must be at least 1"
            )
        if not 0 <= first_step <= last_step:
            raise InputError(f"steps {first_step} to {last_step} are not a range: check the recipe")
        if batch_size % world_size:
            raise InputError(
                f"batch size {batch_size} cannot be shared by {world_size} processes: "
                f"use a multiple of {world_size}"
            )
        if not 0 <= rank < world_size:
            raise InputError(f"rank {rank} does not exist among {world_size} processes")
        self.config = config
        self.sources = list(sources) if sources else open_sources(config.sources)
        self.broken = BrokenImages(config.max_broken)
        share = batch_size // world_size
        self._steps = range(first_step, last_step)
        self._dataset = _Steps(
            config,
            self.sources,
            Augment(config.augment, resolution),
            batch_size,
            range(rank * share, (rank + 1) * share),
            (seed, stream),
            repeated,
            teacher_cache,
        )

    def __len__(self) -> int:
        return len(self._steps)

    def __iter__(self) -> Iterator[Batch]:
        pin = torch.cuda.is_available()
        for batch in loaded(self._dataset, self._steps, self.config.workers, pin=pin):
            if isinstance(batch, str):
                raise InputError(batch)
            self.broken.add(batch.broken, len(batch.images))
            yield batch


class _Steps(Dataset["Batch | str"]):
    """Step -> batch, or an error message.

    An exception from another process would arrive wrapped in a traceback.
    """

    def __init__(
        self,
        config: DataConfig,
        sources: list[Source],
        augment: Augment,
        batch_size: int,
        places: range,
        names: tuple[int, str],
        repeated: RepeatedViews | None,
        teacher_cache: Callable[[list[int]], dict[str, Tensor]] | None,
    ) -> None:
        self.sources = sources
        self.shares = list(accumulate(source.weight for source in config.sources))
        self.augment = augment
        self.on_device = config.augment.on_device
        self.min_resolution = augment.min_resolution if config.reduced_decode else None
        self.batch_size = batch_size
        self.places = places
        self.names = names
        self.repeated = repeated
        self.teacher_cache = teacher_cache
        self.cache: dict[tuple[int, int], Image.Image] | None = {} if config.cache_images else None
        self.known: dict[tuple[int, int], str] = {}  # of the images in `cache`

    def __getitem__(self, step: int) -> Batch | str:
        threads = torch.get_num_threads()
        try:
            # Without workers torch would split each small copy over all cores, where waiting
            # for the others makes loading up to four times slower.
            torch.set_num_threads(1)
            return self._batch(step)
        except InputError as error:
            return str(error)
        finally:
            torch.set_num_threads(threads)

    def _batch(self, step: int) -> Batch:
        draw = derive_seed(*self.names, step, "source") / 2**63 * self.shares[-1]
        source = min(int(np.searchsorted(self.shares, draw, "right")), len(self.shares) - 1)
        resolution = self.augment.resolution
        images = torch.empty(len(self.places), 3, resolution, resolution, dtype=torch.uint8)
        broken: list[str] = []
        numbers: list[int] = []
        seeds: list[int] = []
        shown: list[tuple[int, int]] = []
        indices, visits = self._indices(step, source)
        for row, place in enumerate(self.places):
            image, index = self._readable(step, place, source, int(indices[row]), broken)
            seed = derive_seed(*self.names, step, place, "augment")
            if self.repeated:
                numbers.append(self.repeated.number(source, index, int(visits[row])))
                seed = self.repeated.seed_of(numbers[-1])
            seeds.append(seed)
            shown.append((source, index))
            images[row] = self.augment(image, seed)
        cached = self.teacher_cache(numbers) if self.teacher_cache else {}
        if self.teacher_cache:
            self._check(cached.pop("contents"), shown)
        draws = batch_draws(seeds) if self.on_device else None
        return Batch(step, images, source, broken, cached, draws)

    def _check(self, cached: Tensor, shown: list[tuple[int, int]]) -> None:
        """Check that cached outputs were computed from the images that are shown.

        By the bytes of every image when it is used, since a whole set is too large to read
        beforehand. Bytes are exact where pixels are not: a blur rounds differently on other
        processors. Reading them again costs some 1 % of decoding and augmenting them.
        """
        now = contents([self._content(source, index) for source, index in shown])
        wrong = (cached != now).any(1).nonzero().flatten().tolist()
        if wrong:
            source, index = shown[wrong[0]]
            raise InputError(
                f"{self.sources[source].name(index)} is not the image that its cached teacher "
                "outputs were made of: put that image back, or delete the cached outputs"
            )

    def _content(self, source: int, index: int) -> str:
        if self.cache is None:
            return content(self.sources[source], index)
        if (source, index) not in self.known:
            self.known[source, index] = content(self.sources[source], index)
        return self.known[source, index]

    def _indices(self, step: int, source: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Which images of the source this rank takes, the step's window of its epochs; and the
        number of the visit, which is the epoch's where every image comes once in each.
        """
        size = len(self.sources[source])
        places = np.arange(self.places.start, self.places.stop, dtype=np.int64)
        epochs, positions = np.divmod(step * self.batch_size + places, size)
        indices, visits = np.empty_like(positions), epochs.copy()
        weights = self.sources[source].weights
        for epoch in np.unique(epochs):
            here = epochs == epoch
            key = derive_seed(*self.names, "order", source, int(epoch))
            places = shuffled(positions[here], size, key)
            if weights is None:
                indices[here] = places
            else:
                start = derive_seed(*self.names, "weights", source, int(epoch)) / 2**63
                indices[here], again = weights(places, start)
                visits[here] += again
        return indices, visits

    def _readable(
        self, step: int, place: int, source: int, index: int, broken: list[str]
    ) -> tuple[Image.Image, int]:
        """Image `index`, or the first readable one of further draws, and its index."""
        tried: list[str] = []
        for attempt in range(_ATTEMPTS):
            try:
                image = self._read(source, index)
                broken.extend(tried)
                return image, index
            except BrokenImage:
                tried.append(self.sources[source].name(index))
                again = derive_seed(*self.names, step, place, "again", attempt)
                index = again % len(self.sources[source])
        some = "; ".join(list(dict.fromkeys(tried))[:10])
        raise InputError(
            f"none of {_ATTEMPTS} images drawn in a row can be read: replace or remove {some}"
        )

    def _read(self, source: int, index: int) -> Image.Image:
        if self.cache is None:
            return self.sources[source].read(index, self.min_resolution)
        if (source, index) not in self.cache:
            self.cache[source, index] = self.sources[source].read(index, self.min_resolution)
        return self.cache[source, index]
