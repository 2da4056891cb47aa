"""A fixed number of views per image, for cached teacher outputs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor
from torch.utils.data import Dataset

from openeupe.data.augment import Augment
from openeupe.data.batch_augment import BatchAugment, batch_draws
from openeupe.data.config import DataConfig
from openeupe.data.decode import BrokenImage
from openeupe.data.recorded import content
from openeupe.data.sources import Source
from openeupe.seeds import derive_seed


class RepeatedViews(Dataset[Tensor]):
    """`views` views of every image, numbered by source, image and view.

    The crop, flip and colors of a view are a function of (seed, number), so they need not be saved.

    Args:
        resolution: of the views, in pixels.
        seed: another seed gives other views.
        views: distinct views of an image.
    """

    def __init__(
        self, config: DataConfig, resolution: int, seed: int, views: int, sources: Sequence[Source]
    ) -> None:
        self.sources = list(sources)
        self.views = views
        self.seed = seed
        self.augment = Augment(config.augment, resolution)
        self.min_resolution = self.augment.min_resolution if config.reduced_decode else None
        self._starts = [0, *accumulate(len(source) for source in self.sources)]

    def __len__(self) -> int:
        return self._starts[-1] * self.views

    def number(self, source: int, index: int, visit: int) -> int:
        """Number of the view for the `visit`-th draw (from 0) of an image, cycled.

        In a source with weights visits are counted within an epoch and begin one later in each, so
        that an image drawn several times an epoch may show a view again before all were shown;
        over many epochs it shows all of them equally often.
        """
        return (self._starts[source] + index) * self.views + visit % self.views

    def seed_of(self, number: int) -> int:
        """Seed of a view's augmentation."""
        return derive_seed(self.seed, "view", number)

    def __getitem__(self, number: int) -> Tensor:
        """View `number`, uint8 `[3, S, S]`. Raises `BrokenImage`."""
        source, index = self._place(number)
        picture = self.sources[source].read(index, self.min_resolution)
        return self.augment(picture, self.seed_of(number))

    def _place(self, number: int) -> tuple[int, int]:
        """Source and index of the image that view `number` shows."""
        image = number // self.views
        source = max(i for i, start in enumerate(self._starts[:-1]) if start <= image)
        return source, image - self._starts[source]

    def readable(self, numbers: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Views uint8 `[n, 3, S, S]`, black where an image cannot be read.

        Also returns the `contents` of their images, 0 where one cannot be read.
        """
        resolution = self.augment.resolution
        found = torch.zeros(len(numbers), 3, resolution, resolution, dtype=torch.uint8)
        places = [self._place(number) for number in numbers]
        known = contents([content(self.sources[source], index) for source, index in places])
        for row, number in enumerate(numbers):
            try:
                found[row] = self[number]
            except BrokenImage:
                known[row] = 0  # if training can read it after all, this view was not cached
        return found, known

    def finish(self, found: Tensor, numbers: Sequence[int]) -> Tensor:
        """Apply the augmentation that `augment.on_device` left to the device."""
        config = self.augment.config
        if not (config.on_device and numbers):
            return found
        draws = batch_draws([self.seed_of(number) for number in numbers]).to(found.device)
        return BatchAugment(config, self.augment.resolution, found.device)(found, draws)


def contents(identities: Sequence[str]) -> Tensor:
    """Identities of images' bytes (see `content`) as uint8 `[n, 8]`; 0 where there is none."""
    digits = "".join(one or "0" * 16 for one in identities)
    return torch.tensor(list(bytes.fromhex(digits)), dtype=torch.uint8).view(-1, 8)
