from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional as F

from openeupe.datasets.point_files import KeypointSet
from openeupe.encoders import Encoder, Tokens
from openeupe.evaluation.benchmark import EvaluatedEncoder
from openeupe.evaluation.correspondence import (
    Correspondence,
    Letterbox,
    Matches,
    WhiteCorner,
    chance_hit,
    draw_pairs,
    match_pixels,
    match_tokens,
    pck_hits,
)
from openeupe.evaluation.features import Features
from openeupe.evaluation.measure import Outcome

SETTINGS = {"layout": "spair", "path": "unused"}


class Patches(Encoder):
    """Perfect features: waves of each patch's pixels, nearly orthogonal unless patches are alike.

    With `scramble`, each image's tokens are in an order of its own.
    """

    def __init__(self, patch_size: int = 8, scramble: bool = False) -> None:
        super().__init__(
            name="patches", args={}, cls_dim=3, patch_dim=256,
            patch_size=patch_size, resolution=64, mean=(0.5,) * 3, std=(0.5,) * 3,
        )  # fmt: skip
        self.scramble = scramble
        g = torch.Generator().manual_seed(0)
        self.waves = torch.randn(256, 3 * patch_size**2, 1, 1, generator=g)

    def tokens(self, pixels: Tensor) -> Tokens:
        found = F.conv2d(F.pixel_unshuffle(pixels, self.patch_size), self.waves).sin()
        if self.scramble:
            for image in found:
                g = torch.Generator().manual_seed(int(image.abs().sum() * 1000))
                order = torch.randperm(image[0].numel(), generator=g)
                image.copy_(image.flatten(1)[:, order].view_as(image))
        return Tokens(pixels.mean((2, 3)), found)


def photos(root: Path, count: int, sizes: list[tuple[int, int]]) -> list[str]:
    rng = np.random.default_rng(0)
    names = []
    for number in range(count):
        width, height = sizes[number % len(sizes)]
        small = rng.integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
        names.append(f"{number}.png")
        Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).save(
            root / names[-1]
        )
    return names


def run(images: KeypointSet, encoder: Encoder, **settings: object) -> Outcome:
    benchmark = Correspondence.model_validate({"data": SETTINGS, **settings})
    pairs = draw_pairs(images.pairs(), benchmark.pairs_per_category, benchmark.seed)
    points = {index: images.keypoints(index) for index in range(len(images))}
    return benchmark.run(
        Matches(images, pairs, points), EvaluatedEncoder(encoder, Features(encoder))
    )[""]


def identical(root: Path, sizes: list[tuple[int, int]]) -> KeypointSet:
    """Pairs of an image with itself."""
    names = photos(root, 12, sizes)
    rng = np.random.default_rng(1)
    points = []
    for number in range(12):
        width, height = sizes[number % len(sizes)]
        at = rng.random((9, 2)) * (width - 1, height - 1)
        points.append({str(k): (float(x), float(y)) for k, (x, y) in enumerate(at)})
    boxes = [(0.0, 0.0, float(max(s)), 1.0) for n in range(12) for s in [sizes[n % len(sizes)]]]
    pairs = [(i, i, "odd" if i % 2 else "even") for i in range(12)]
    return KeypointSet(root, names, points, boxes, pairs)


@pytest.mark.parametrize("geometry", ["eupe", "dinov3"])
def test_an_image_matches_itself(tmp_path: Path, geometry: str) -> None:
    images = identical(tmp_path, [(120, 80), (64, 100)])
    outcome = run(images, Patches(), geometry=geometry, resolution=128)
    assert outcome.headline == "pck@0.1"
    assert outcome.measures["pck@0.1"].value == 100
    assert outcome.details["keypoints"] == 12 * 9
    assert outcome.details["per_category"] == {"even": 100, "odd": 100}
    assert outcome.baselines["same place"] == 100


def test_scrambled_tokens_are_at_chance(tmp_path: Path) -> None:
    images = identical(tmp_path, [(100, 100)])
    pairs = [(i, j, "all") for i in range(12) for j in range(12) if i != j]
    images = KeypointSet(tmp_path, images.files, [images.keypoints(i) for i in range(12)],
                         [images.box(i) for i in range(12)], pairs)  # fmt: skip
    outcome = run(images, Patches(scramble=True), resolution=128, pairs_per_category=None)
    assert outcome.details["pairs"] == 132
    figure = outcome.measures["pck@0.1"].value
    assert abs(figure - outcome.baselines["chance"]) < 2.5  # 1,188 points: one SE is 0.5
    assert 1 < outcome.baselines["chance"] < 3.2  # the disk is 3.1 % of the image, less at borders


def test_letterbox_is_centred_and_keeps_the_aspect() -> None:
    picture = Image.new("RGB", (100, 50), (255, 0, 0))
    view = Letterbox(64, 64)
    laid = view.image(picture)
    assert laid[0, :16].max() == 0
    assert laid[0, 16:48].min() == 255
    assert laid[0, 48:].max() == 0
    assert view.placement((100, 50)) == (0.64, 0.64, 0, 16)


def test_white_corner_lies_right_and_below() -> None:
    picture = Image.new("RGB", (50, 100), (255, 0, 0))
    view = WhiteCorner(64, 64)
    laid = view.image(picture)
    assert laid[1, :, :30].max() == 0
    assert laid[1, :, 34:].min() == 255
    assert view.placement((50, 100)) == (0.64, 0.64, 0, 0)


def test_a_marked_pixel_comes_to_lie_where_the_placement_says() -> None:
    for size in ((300, 200), (123, 301), (64, 64)):
        mark = np.zeros((size[1], size[0], 3), np.uint8)
        mark[40:47, 20:27] = 255
        for view in (Letterbox(128, 128), WhiteCorner(128, 128)):
            laid = view.image(Image.fromarray(mark)).float()[0]
            sx, sy, dx, dy = view.placement(size)
            inside = torch.zeros_like(laid)  # white padding aside
            inside[int(dy) : int(dy + sy * size[1]), int(dx) : int(dx + sx * size[0])] = 1
            ys, xs = (laid * inside > 127).nonzero().T.float()
            assert abs(float(xs.mean()) + 0.5 - (23.5 * sx + dx)) < 0.6
            assert abs(float(ys.mean()) + 0.5 - (43.5 * sy + dy)) < 0.6


def by_hand(
    source: Tensor, target: Tensor, point: list[float], resolution: int
) -> list[list[float]]:
    """EUPE's rule in the plainest way: normalize, upsample all features, look at every pixel."""
    maps = []
    for tokens in (source, target):
        unit = tokens / tokens.pow(2).sum(0, keepdim=True).sqrt()
        maps.append(
            F.interpolate(unit[None], scale_factor=resolution / unit.shape[1], mode="bilinear")[0]
        )
    x, y = (min(max(round(value), 0), resolution - 1) for value in point)
    query = maps[0][:, y, x]
    return [[float(query @ maps[1][:, i, j]) for j in range(resolution)] for i in range(resolution)]


def test_pixels_match_as_by_hand_in_a_thousand_cases() -> None:
    g = torch.Generator().manual_seed(0)
    rng = np.random.default_rng(0)
    for _ in range(500):
        cells, patch, width = (int(n) for n in rng.integers((1, 1, 2), (4, 4, 5)))
        source, target = torch.randn(2, width, cells, cells, generator=g).double()
        points = rng.random((2, 2)) * cells * patch
        found = match_pixels(source, target, points, cells * patch).astype(int)
        for point, (x, y) in zip(points.tolist(), found, strict=True):
            similarity = by_hand(source, target, point, cells * patch)
            # Corner pixels share one upsampled feature: any of them is the best.
            assert similarity[y][x] >= max(map(max, similarity)) - 1e-12


def test_tokens_match_as_by_hand_in_a_thousand_cases() -> None:
    """Probe3D's rule: corner tokens lie at 0 and 1; a match is at index / grid."""
    rng = np.random.default_rng(0)
    for _ in range(500):
        cells, resolution = int(rng.integers(2, 5)), 40
        source, target = torch.from_numpy(rng.normal(size=(2, 3, cells, cells)))
        points = rng.random((2, 2)) * resolution
        found = match_tokens(source, target, points, resolution)
        unit, other = (t / t.norm(dim=0) for t in (source, target))
        for (x, y), match in zip(points / resolution * (cells - 1), found, strict=True):
            left, top = min(int(x), cells - 2), min(int(y), cells - 2)
            u, v = x - left, y - top
            query = (
                unit[:, top, left] * (1 - u) * (1 - v)
                + unit[:, top, left + 1] * u * (1 - v)
                + unit[:, top + 1, left] * (1 - u) * v
                + unit[:, top + 1, left + 1] * u * v
            )
            best = max(
                ((float(query @ other[:, i, j]), i, j) for i in range(cells) for j in range(cells)),
            )
            assert match.tolist() == [best[2] * resolution / cells, best[1] * resolution / cells]


def test_pck_equals_a_plain_count_in_a_thousand_cases() -> None:
    rng = np.random.default_rng(0)
    total = 0
    for _ in range(1000):
        found, truth = rng.random((2, int(rng.integers(1, 9)), 2)) * 20
        reach = float(rng.random() * 100)
        expected = [
            sum(math.dist(f, t) < share * reach for f, t in zip(found, truth, strict=True))
            for share in (0.1, 0.05, 0.01)
        ]
        assert pck_hits(found, truth, reach, (0.1, 0.05, 0.01)).tolist() == expected
        total += sum(expected)
    assert total > 900


def test_points_are_pooled_in_a_category_and_categories_averaged(tmp_path: Path) -> None:
    names = photos(tmp_path, 2, [(64, 64)])
    points = {"p": (20.0, 20.0), "q": (40.0, 44.0), "r": (8.0, 50.0)}
    away = {"p": (20.0, 20.0), "q": (4.0, 4.0), "r": (60.0, 4.0)}
    images = KeypointSet(
        tmp_path, [names[0], names[0], names[1]], [points, away, {"p": (20.0, 20.0)}],
        [(0, 0, 64, 64)] * 3, [(0, 1, "a"), (0, 0, "a"), (2, 2, "b")],
    )  # fmt: skip
    outcome = run(images, Patches(), resolution=64)
    assert outcome.details["per_category"] == {"a": 66.67, "b": 100}  # 4 of 6, not (1/3 + 1) / 2
    assert outcome.measures["pck@0.1"].value == pytest.approx((400 / 6 + 100) / 2)
    assert outcome.measures["pck@0.1"].sums.shape == (1, 3, 4)


def test_chance_equals_a_count_of_pixels() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        width, height = rng.integers(1, 30, 2)
        point, radius = rng.random(2) * (width, height), float(rng.random() * 15)
        ys, xs = np.mgrid[:height, :width]
        inside = (xs - point[0]) ** 2 + (ys - point[1]) ** 2 < radius**2
        assert chance_hit(point, radius, (width, height)) == pytest.approx(inside.mean())


def test_drawn_pairs_are_distinct_and_of_every_category() -> None:
    pairs = [(i, j, c) for c in "ba" for i in range(20) for j in range(20)]
    drawn = draw_pairs(pairs, 100, seed=0)
    assert drawn == draw_pairs(pairs, 100, seed=0) != draw_pairs(pairs, 100, seed=1)
    assert len(set(drawn)) == 200
    assert [c for *_, c in drawn] == ["a"] * 100 + ["b"] * 100
    assert draw_pairs(pairs, None, seed=0) == sorted(pairs, key=lambda p: p[2])


@pytest.mark.parametrize(("patch", "eupe", "dinov3"), [(14, 448, 896), (16, 512, 1024)])
def test_sides_of_the_protocols(patch: int, eupe: int, dinov3: int) -> None:
    for geometry, resolution in (("eupe", eupe), ("dinov3", dinov3)):
        benchmark = Correspondence.model_validate({"data": SETTINGS, "geometry": geometry})
        assert benchmark._resolution(Patches(patch)) == resolution
        assert benchmark.protocol == f"correspondence/{geometry}-v1"
    benchmark = Correspondence.model_validate({"data": SETTINGS, "resolution": 800})
    assert benchmark._resolution(Patches(16)) == 800
    assert benchmark._resolution(Patches(14)) == 798


def test_scenes_run_through_the_benchmark(tmp_path: Path) -> None:
    benchmark = Correspondence.model_validate(
        {"data": {"layout": "scenes", "count": 40}, "resolution": 64, "pairs_per_category": 2}
    )
    data = benchmark.open(tmp_path)
    assert all(data.points[a].keys() & data.points[b].keys() for a, b, _ in data.pairs)
    outcome = benchmark.run(data, EvaluatedEncoder(Patches(), Features(Patches())))[""]
    assert 0 < outcome.measures["pck@0.1"].value < 100
    assert set(outcome.baselines) == {"chance", "centre guess", "same place"}
    assert outcome.measures["pck@0.1"].value >= outcome.measures["pck@0.05"].value


@pytest.mark.parametrize("asked", [None, 101])
def test_more_pairs_than_scenes_offer_are_refused(asked: int | None) -> None:
    """null promises all pairs, of which scenes have more than they name."""
    settings = {"data": {"layout": "scenes"}, "pairs_per_category": asked}
    with pytest.raises(ValidationError, match="scenes offer 100 pairs of a category"):
        Correspondence.model_validate(settings)
