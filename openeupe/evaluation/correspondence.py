"""Keypoint correspondence without training: PCK on pairs of images (paper appendix C.5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import v2

from openeupe.data import View
from openeupe.datasets.interfaces import KeypointImages
from openeupe.datasets.keypoints import KeypointData
from openeupe.datasets.scenes.dataset import SCENE_PAIRS
from openeupe.datasets.subset import Subset
from openeupe.encoders import Encoder
from openeupe.evaluation.benchmark import Benchmark, Domain, EvaluatedEncoder
from openeupe.evaluation.features import fitting_resolution
from openeupe.evaluation.measure import Measure, Outcome, class_mean
from openeupe.seeds import derive_seed, shuffled

Pair = tuple[int, int, str]
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Letterbox(View):
    """EUPE's geometry: aspect preserved, Lanczos, image centred on black."""

    geometry: Literal["crop", "squash", "pad"] = "pad"

    def image(self, image: Image.Image) -> Tensor:
        """uint8 `[3, height, width]`."""
        return v2.functional.pil_to_tensor(self._lay(image, Image.Resampling.LANCZOS, 0))


@dataclass(frozen=True)
class WhiteCorner(View):
    """Probe3D's geometry: white added at the right or below to a square, then bicubic."""

    geometry: Literal["crop", "squash", "pad"] = "pad"

    def image(self, image: Image.Image) -> Tensor:
        """uint8 `[3, height, width]`."""
        square = Image.new("RGB", (max(image.size),) * 2, "white")
        square.paste(image)
        square = square.resize((self.width, self.height), Image.Resampling.BICUBIC)
        return v2.functional.pil_to_tensor(square)

    def placement(self, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """As `View.placement`; the corner does not move."""
        return self.width / max(size), self.height / max(size), 0.0, 0.0


@dataclass(frozen=True)
class Matches:
    """Images, pairs, and the visible points of each image in a pair."""

    images: KeypointImages
    pairs: list[Pair]
    points: dict[int, dict[str, tuple[float, float]]]


class Correspondence(Benchmark):
    """PCK: the share of points that are matched near the ground truth.

    A source point's feature is looked up in the target image; a match is right if it is nearer to
    the target point than `threshold * max(height, width)` of the target object's box. Points are
    pooled inside a category, then categories are averaged.

    geometry:
        eupe: 448 or 512 px (32 patches of 14 or 16), aspect kept, Lanczos, centred on black. Tokens
            are L2-normalized, then upsampled bilinearly to every pixel; the feature at the rounded
            source pixel is compared by dot product (upsampled features are not normalized again)
            with all target pixels, padding included.
        dinov3: 896 or 1024 px, white added right or below, bicubic, as Probe3D does: the source is
            sampled bilinearly between tokens (corners aligned), the match is a token, and its
            position is index / grid. DINOv3 takes the better of tokens with and without the final
            norm; here it is the encoder's tokens alone.
    """

    kind: Literal["correspondence"] = "correspondence"
    protocol: str = Field("", description="Default: correspondence/GEOMETRY-v1")
    domain: Domain = "dense"
    data: KeypointData
    geometry: Literal["eupe", "dinov3"] = "eupe"
    resolution: int | None = Field(
        None, ge=1, description="Pixels; default: 512 or 448 (eupe), 1024 or 896 (dinov3)"
    )
    thresholds: tuple[float, ...] = Field((0.1, 0.05, 0.01), min_length=1)
    pairs_per_category: int | None = Field(
        100, ge=1, description="Drawn without replacement; null: all pairs"
    )
    seed: int = Field(0, description="Which pairs are drawn")

    @model_validator(mode="before")
    @classmethod
    def _protocol(cls, raw: object) -> object:
        if isinstance(raw, dict) and not raw.get("protocol"):
            return {**raw, "protocol": f"correspondence/{raw.get('geometry', 'eupe')}-v1"}
        return raw

    @model_validator(mode="after")
    def _offered(self) -> Self:
        most = SCENE_PAIRS
        if self.data.layout == "scenes" and (self.pairs_per_category or most + 1) > most:
            raise ValueError(f"scenes offer {most} pairs of a category: pairs_per_category at most")
        return self

    def open(self, root: Path) -> Matches:
        """Check all annotations and images, and draw the pairs."""
        images = self.data.open(root)
        pairs = images.pairs()
        points = {end: images.keypoints(end) for pair in pairs for end in pair[:2]}
        pairs = [(a, b, c) for a, b, c in pairs if points[a].keys() & points[b].keys()]
        return Matches(images, draw_pairs(pairs, self.pairs_per_category, self.seed), points)

    def identities(self, data: Matches) -> list[str]:
        """Of images, points, boxes and pairs. Which pairs are drawn is a setting."""
        return [data.images.identity]

    def run(self, data: Matches, evaluated: EvaluatedEncoder) -> dict[str, Outcome]:
        """Evaluate one category after the other, to limit the cached tokens."""
        resolution = self._resolution(evaluated.encoder)
        view = (Letterbox if self.geometry == "eupe" else WhiteCorner)(resolution, resolution)
        match = match_pixels if self.geometry == "eupe" else match_tokens
        images, pairs = data.images, data.pairs
        categories = sorted({category for *_, category in pairs})
        # Hits of every pair, by category: for each threshold, then of the baselines.
        hits = np.zeros((len(self.thresholds) + len(_GUESSES), len(pairs), len(categories)))
        counts = np.zeros((len(pairs), len(categories)))
        for number, category in enumerate(categories):
            chosen = [i for i, pair in enumerate(pairs) if pair[2] == category]
            part = _Part(images, sorted({end for i in chosen for end in pairs[i][:2]}))
            tokens = evaluated.features.patches(part, view)
            for i in chosen:
                source, target = (_End(data, part, end) for end in pairs[i][:2])
                names = [name for name in source.points if name in target.points]
                known, truth = (
                    np.array([end.points[name] for name in names]) for end in (source, target)
                )
                maps = [
                    tokens[part.place[end]].to(evaluated.device).float() for end in pairs[i][:2]
                ]
                found = match(maps[0], maps[1], _to_view(known, view, source.size), resolution)
                found = _to_image(found, view, target.size)
                hits[:, i, number] = [
                    *pck_hits(found, truth, target.reach, self.thresholds),
                    *_guesses(known, truth, source, target, self.thresholds[0]),
                ]
                counts[i, number] = len(names)
        sums = [np.concatenate([h, counts], axis=1) for h in hits]
        samples = [f"{images.name(a)} -> {images.name(b)}" for a, b, _ in pairs]
        each = 100 * hits[0].sum(0) / counts.sum(0)
        return {
            "": Outcome(
                f"pck@{self.thresholds[0]:g}",
                {
                    f"pck@{threshold:g}": Measure("class_mean", samples, s[None], 100, unit="%")
                    for threshold, s in zip(self.thresholds, sums, strict=False)
                },
                baselines={
                    name: 100 * float(class_mean(s.sum(0)))
                    for name, s in zip(_GUESSES, sums[len(self.thresholds) :], strict=True)
                },
                details={
                    "resolution": resolution,
                    "images": len({end for pair in pairs for end in pair[:2]}),
                    "pairs": len(pairs),
                    "keypoints": int(counts.sum()),
                    "per_category": dict(zip(categories, each.round(2).tolist(), strict=True)),
                },
            )
        }

    def _resolution(self, encoder: Encoder) -> int:
        """The asked resolution, or the protocol's, fitted to the encoder's patches."""
        usual = (512, 448) if self.geometry == "eupe" else (1024, 896)
        fits = [s for s in usual if s % encoder.patch_size == 0]
        return fitting_resolution(encoder, self.resolution or (fits or usual)[0])


def draw_pairs(pairs: Sequence[Pair], per_category: int | None, seed: int) -> list[Pair]:
    """Pairs of sorted categories: all, or `per_category` of each drawn without replacement.

    A pure function of its arguments, whatever the machine; drawn pairs keep their order.
    """
    chosen: list[Pair] = []
    for category in sorted({category for *_, category in pairs}):
        members = [pair for pair in pairs if pair[2] == category]
        if per_category is not None and per_category < len(members):
            key = derive_seed(seed, "correspondence", category)
            drawn = shuffled(np.arange(per_category), len(members), key)
            members = [members[i] for i in sorted(drawn.tolist())]
        chosen += members
    return chosen


def match_pixels(source: Tensor, target: Tensor, points: Array, resolution: int) -> Array:
    """EUPE's rule: the target pixel with the most similar upsampled feature.

    The dot product is linear in the target's features, so similarities are upsampled in place of
    features: the same map, without `resolution * resolution * D` numbers.

    Args:
        source, target: `[D, h, w]` tokens of two views of `resolution` pixels.
        points: `[K, 2]` (x, y) in pixels of the source view; rounded to whole pixels.

    Returns:
        `[K, 2]` (x, y) whole pixels of the target view.
    """
    source, target = F.normalize(source, dim=0), F.normalize(target, dim=0)
    pixels = torch.from_numpy(points).round().clamp(0, resolution - 1).to(source)
    grid = (pixels + 0.5) * (2 / resolution) - 1
    at = F.grid_sample(source[None], grid[None, None], padding_mode="border", align_corners=False)
    similarity = torch.einsum("dk,dhw->khw", at[0, :, 0], target)
    every = F.interpolate(similarity[None], (resolution, resolution), mode="bilinear")[0]
    best = every.flatten(1).argmax(dim=1).cpu().numpy()
    return np.stack([best % resolution, best // resolution], axis=1).astype(np.float64)


def match_tokens(source: Tensor, target: Tensor, points: Array, resolution: int) -> Array:
    """Probe3D's rule, arguments and result as `match_pixels`; positions are index / grid."""
    source, target = F.normalize(source, dim=0), F.normalize(target, dim=0)
    grid = torch.from_numpy(points).to(source) * (2 / resolution) - 1
    at = F.grid_sample(source[None], grid[None, None], align_corners=True)
    similarity = torch.einsum("dk,dhw->khw", at[0, :, 0], target)
    best = similarity.flatten(1).argmax(dim=1).cpu().numpy()
    height, width = target.shape[1:]
    return np.stack(
        [best % width * (resolution / width), best // width * (resolution / height)], axis=1
    )


def pck_hits(found: Array, truth: Array, reach: float, thresholds: Sequence[float]) -> Array:
    """How many of `found [K, 2]` lie nearer than `threshold * reach` to `truth [K, 2]`: `[T]`."""
    distance = np.linalg.norm(found - truth, axis=1)
    return (distance[None] < np.asarray(thresholds)[:, None] * reach).sum(axis=1).astype(float)


def chance_hit(point: Array, radius: float, size: tuple[int, int]) -> float:
    """Probability that a random pixel of an image is nearer than `radius`. `size` is (w, h)."""
    width, height = size
    x = np.arange(width)
    x = x[np.abs(x - point[0]) < radius]
    half = np.sqrt(radius**2 - (x - point[0]) ** 2)
    first, last = np.ceil(point[1] - half), np.floor(point[1] + half)
    rows = np.minimum(last, height - 1) - np.maximum(first, 0) + 1
    return float(rows.clip(min=0).sum() / (width * height))


_GUESSES = ("chance", "centre guess", "same place")


def _guesses(
    known: Array, truth: Array, source: _End, target: _End, threshold: float
) -> list[float]:
    """Expected hits of three guesses: random pixel, box centre, same relative place."""
    chance = sum(chance_hit(point, threshold * target.reach, target.size) for point in truth)
    places = (np.array([target.middle]), known * np.divide(target.size, source.size))
    return [chance, *(pck_hits(p, truth, target.reach, (threshold,))[0] for p in places)]


class _End:
    """Data of one image of a pair for matching."""

    def __init__(self, data: Matches, part: _Part, index: int) -> None:
        x0, y0, x1, y1 = data.images.box(index)
        self.points, self.size = data.points[index], part.size(index)
        self.reach, self.middle = max(x1 - x0, y1 - y0), ((x0 + x1) / 2, (y0 + y1) / 2)


class _Part(Subset):
    """Some images of the set, with cached sizes."""

    def __init__(self, images: KeypointImages, indices: list[int]) -> None:
        super().__init__(images, indices)
        self.place = {index: place for place, index in enumerate(indices)}
        self._sizes: dict[int, tuple[int, int]] = {}

    def read(self, index: int) -> Image.Image:
        image = super().read(index)
        self._sizes[index] = image.size
        return image

    def size(self, index: int) -> tuple[int, int]:
        """(width, height) of image `index` of the whole set."""
        place = self.place[index]
        if place not in self._sizes:  # its tokens were cached
            self.read(place)
        return self._sizes[place]


def _to_view(points: Array, view: View, size: tuple[int, int]) -> Array:
    sx, sy, dx, dy = view.placement(size)
    return points * (sx, sy) + (dx, dy)


def _to_image(points: Array, view: View, size: tuple[int, int]) -> Array:
    sx, sy, dx, dy = view.placement(size)
    return (points - (dx, dy)) / (sx, sy)
