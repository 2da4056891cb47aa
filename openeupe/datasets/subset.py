"""Some images of a set."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from openeupe.datasets.interfaces import Images
from openeupe.identity import facts_identity


class Subset:
    """The images of a set at `indices`, in that order: an `Images`."""

    def __init__(self, images: Images, indices: Sequence[int]) -> None:
        self.images, self.indices = images, [int(index) for index in indices]
        self.fingerprint = facts_identity(images.fingerprint, self.indices)

    def __len__(self) -> int:
        return len(self.indices)

    def read(self, index: int) -> Image.Image:
        """RGB image `index` of the subset. Raises `BrokenImage`."""
        return self.images.read(self.indices[index])

    def name(self, index: int) -> str:
        """The image's name in the whole set."""
        return self.images.name(self.indices[index])


def spread(images: Images, count: int | None) -> Images:
    """At most `count` images, evenly spaced over the set's order (of every class folder some)."""
    if count is None or count >= len(images):
        return images
    return Subset(images, [number * len(images) // count for number in range(count)])
