"""Images with named points, boxes and pairs, for all annotation formats."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from PIL import Image

from openeupe.data.decode import decode, opened, upright_size
from openeupe.data.string_array import printable
from openeupe.errors import InputError
from openeupe.identity import facts_identity, files_identity

Point = tuple[float, float]
Box = tuple[float, float, float, float]


class KeypointSet:
    """Image files with points, boxes and pairs: a `KeypointImages`.

    Args:
        root: folder of `files`.
        files: relative path of each image.
        points: for each image, visible points by name: (x, y) in pixels of the image.
        boxes: for each image the object's box (x0, y0, x1, y1) in pixels.
        pairs: (source image, target image, category).
        sizes: (width, height) of the annotations, compared with the images.

    Raises:
        InputError: for an image that is missing, damaged or of another size, for a point outside
            its image, and for a set without pairs.
    """

    def __init__(
        self,
        root: Path,
        files: list[str],
        points: list[dict[str, Point]],
        boxes: list[Box],
        pairs: list[tuple[int, int, str]],
        sizes: list[tuple[int, int] | None] | None = None,
    ) -> None:
        if not pairs:
            raise InputError(f"keypoints of {root}: no two images share a visible point; add some")
        self.root, self.files = root, files
        self._points, self._boxes, self._pairs = points, boxes, pairs
        for index, file in enumerate(files):
            _check(root / file, points[index], sizes[index] if sizes else None)

    @cached_property
    def fingerprint(self) -> str:
        """Identity of the images, by names and contents."""
        return files_identity(self.root, (self.root / file for file in self.files))

    @property
    def identity(self) -> str:
        """Identity of the images and all annotations."""
        return facts_identity(self.fingerprint, self._points, self._boxes, self._pairs)

    def __len__(self) -> int:
        return len(self.files)

    def read(self, index: int) -> Image.Image:
        """RGB image `index`. Raises `BrokenImage`."""
        return decode(self.root / self.files[index], str(self.root / self.files[index]))

    def name(self, index: int) -> str:
        """The image's path inside the set."""
        return printable(self.files[index])

    def keypoints(self, index: int) -> dict[str, Point]:
        """Visible points of image `index`: name -> (x, y) in pixels."""
        return self._points[index]

    def box(self, index: int) -> Box:
        """The object's box (x0, y0, x1, y1) in pixels."""
        return self._boxes[index]

    def pairs(self) -> list[tuple[int, int, str]]:
        """(source, target, category) of every pair."""
        return self._pairs


def _check(path: Path, points: dict[str, Point], marked: tuple[int, int] | None) -> None:
    if not path.is_file():
        raise InputError(f"{path} is missing, though the keypoints name it: restore the image")
    try:
        with opened(path) as image:
            width, height = upright_size(image)  # as `read` gives it, and people mark it
    except Exception as error:  # Pillow's readers raise nearly anything on damaged bytes
        raise InputError(
            f"{printable(str(path))} cannot be read as an image: replace the file"
        ) from error
    if marked is not None and marked != (width, height):
        raise InputError(
            f"{path} has {width}x{height} pixels, its annotation has {marked[0]}x{marked[1]}: "
            "use the images that the keypoints were marked on"
        )
    for name, (x, y) in points.items():
        if not (-1 <= x <= width and -1 <= y <= height):
            raise InputError(
                f"point {name} of {path} is at ({x:g}, {y:g}), outside its "
                f"{width}x{height} pixels: use the images that the keypoints were marked on"
            )
