"""Compare the edges of two images after alignment, to confirm near copies.

One image is turned, moved and stretched onto the other (Evangelidis & Psarakis 2008, "Parametric
image alignment using enhanced correlation coefficient maximization", by OpenCV); then the edges are
correlated. Crops, resizing, compression and brightness keep the correlation high; the next frame of
a film, or another photo of the same object, does not.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from openeupe.curation.duplicates import Rows
from openeupe.curation.hashing import FLAT
from openeupe.curation.image_pool import ImagePool
from openeupe.curation.libraries import import_opencv
from openeupe.files import durable

_RESOLUTIONS = (32, 64)  # pixels: coarse first, which finds larger moves
_STEPS = 30
_VERSION = 2  # of the comparison: results of older versions are not used
_OVERLAP = 0.5  # minimum share of the area

Gray = NDArray[np.float32]


class Agreement:
    """Compares images of a pool with others. Results of earlier calls are cached.

    Args:
        ours, theirs: an image pool and the digests of its images, uint64 `[N, 2]`; may be the same.
        folder: gets a file for each list of pairs.
        mirrored: whether one image may be mirrored; rotations by 90 degrees are always allowed.
        workers: threads.
    """

    def __init__(
        self,
        ours: tuple[ImagePool, NDArray[np.uint64]],
        theirs: tuple[ImagePool, NDArray[np.uint64]],
        folder: Path,
        mirrored: bool,
        workers: int,
    ) -> None:
        self._ours, self._theirs, self._folder = ours, theirs, folder
        self._mirrored, self._workers = mirrored, workers
        folder.mkdir(parents=True, exist_ok=True)

    def __call__(self, rows: Rows, others: Rows) -> NDArray[np.float32]:
        """`agreement` of each of our rows with one of theirs.

        Raises:
            InputError: if one changed since it was scanned.
        """
        key = hashlib.blake2b(bytes([_VERSION, self._mirrored]), digest_size=16)
        for some, (_, digests) in ((rows, self._ours), (others, self._theirs)):
            key.update(np.ascontiguousarray(digests[some]).tobytes())
        file = self._folder / f"{key.hexdigest()}.npz"
        if (known := self._read(file, len(rows))) is not None:
            return known
        with ThreadPoolExecutor(self._workers) as pool:
            found = np.fromiter(pool.map(self._compare, rows, others), np.float32, len(rows))
        with durable(file) as partial, partial.open("wb") as stream:
            np.savez(stream, agreement=found)  # unlike .npy it has a checksum
        return found

    @staticmethod
    def _read(file: Path, count: int) -> NDArray[np.float32] | None:
        """Read cached results; None if they are missing or damaged."""
        try:
            with np.load(file, allow_pickle=False) as arrays:
                found: NDArray[np.float32] = arrays["agreement"]
        except Exception:  # the reader raises nearly anything on damaged bytes
            return None
        return found if found.dtype == np.float32 and found.shape == (count,) else None

    def _compare(self, row: int, other: int) -> float:
        (ours, digests), (theirs, their_digests) = self._ours, self._theirs
        one = ours.read_again(int(row), digests, _RESOLUTIONS[-1])
        two = theirs.read_again(int(other), their_digests, _RESOLUTIONS[-1])
        return agreement(one, two, self._mirrored)


def agreement(one: Image.Image, two: Image.Image, mirrored: bool = True) -> float:
    """Correlation of the edges of two aligned RGB images: 1 for equal images.

    At most 0 if they cannot be aligned, or one of them has no edges.

    The first is also turned by 90, 180 and 270 degrees; the best counts.

    Args:
        mirrored: whether the first may also be mirrored.
    """
    ours, theirs = _thumbnails(one), _thumbnails(two)
    upright, turned = [ours], [[np.rot90(gray, k) for gray in ours] for k in (1, 2, 3)]
    if mirrored:
        upright += [_mirrored(grays) for grays in upright]
        turned += [_mirrored(grays) for grays in turned]
    # Only the likeliest rotation is aligned, since alignment takes most of the time.
    turned.sort(key=lambda grays: -_correlation(grays[0], theirs[0]))
    return max(_aligned(grays, theirs) for grays in [*upright, turned[0]])


def _mirrored(grays: list[Gray]) -> list[Gray]:
    return [gray[:, ::-1] for gray in grays]


def _correlation(one: Gray, two: Gray) -> float:
    one, two = one - one.mean(), two - two.mean()
    return float((one * two).sum() / max(np.sqrt((one**2).sum() * (two**2).sum()), 1e-9))


def _thumbnails(image: Image.Image) -> list[Gray]:
    gray = image.convert("L")
    sizes = ((resolution, resolution) for resolution in _RESOLUTIONS)
    return [np.asarray(gray.resize(s, Image.Resampling.BICUBIC), np.float32) for s in sizes]


def _aligned(ours: list[Gray], theirs: list[Gray]) -> float:
    cv2 = import_opencv()
    if min(gray[-1].std() for gray in (ours, theirs)) < FLAT:
        return 0.0
    until = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, _STEPS, 1e-4)
    warp = np.eye(2, 3, dtype=np.float32)
    ours = [np.ascontiguousarray(gray) for gray in ours]
    for level, (one, two) in enumerate(zip(ours, theirs, strict=True)):
        if level:
            warp[:, 2] *= _RESOLUTIONS[level] / _RESOLUTIONS[level - 1]
        try:
            _, warp = cv2.findTransformECC(one, two, warp, cv2.MOTION_AFFINE, until, None, 1)
        except cv2.error:  # it does not converge: the images cannot be aligned
            return 0.0
    back = cv2.WARP_INVERSE_MAP
    moved = cv2.warpAffine(two, warp, one.shape, flags=cv2.INTER_CUBIC | back)
    inside = cv2.warpAffine(np.ones_like(two), warp, one.shape, flags=cv2.INTER_LINEAR | back)
    seen = cv2.erode((inside > 0.999).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    if seen.mean() < _OVERLAP:
        return 0.0
    left, right = (
        np.stack([np.gradient(gray, axis=axis)[seen] for axis in (0, 1)]) for gray in (one, moved)
    )
    length = np.sqrt((left**2).sum() * (right**2).sum())
    return float((left * right).sum() / length) if length > 0 else 0.0
