from __future__ import annotations

import math
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from openeupe.encoders.encoder import Encoder, Tokens
from openeupe.errors import InputError
from openeupe.evaluation.benchmark import EvaluatedEncoder
from openeupe.evaluation.crops import DepthCrops, depth_crop, recoloured
from openeupe.evaluation.depth import Depth, OnlineDepth, depth_errors, whole_depths
from openeupe.evaluation.features import Features
from openeupe.heads.depth import DepthHead, DepthHeadSettings


class Telling(Encoder):
    """An encoder whose tokens are bumps along the brightness: here they say the depth."""

    def __init__(self, patch_size: int = 8) -> None:
        super().__init__(
            name="telling",
            args={},
            cls_dim=3,
            patch_dim=16,
            patch_size=patch_size,
            resolution=64,
            mean=(0.5, 0.5, 0.5),
            std=(0.25, 0.25, 0.25),
        )

    def tokens(self, pixels: Tensor) -> Tokens:
        gray = F.avg_pool2d(pixels.mean(1, keepdim=True), self.patch_size)
        levels = torch.linspace(-2, 2, 16, device=pixels.device).view(1, -1, 1, 1)
        return Tokens(pixels.mean((2, 3)), torch.exp(-8 * (gray - levels) ** 2))


def evaluated(encoder: Encoder) -> EvaluatedEncoder:
    return EvaluatedEncoder(encoder, Features(encoder))


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ramps: the brighter, the farther (25 grey levels a metre), some of it unknown."""
    root = tmp_path_factory.mktemp("rooms")
    random = np.random.default_rng(0)
    for part, count in (("train", 12), ("test", 5)):
        for i in range(count):
            corners = random.uniform(1, 9, (2, 2)).astype(np.float32)
            depth = np.array(Image.fromarray(corners).resize((72, 56), Image.Resampling.BILINEAR))
            pixels = np.repeat((depth * 25).round().astype(np.uint8)[..., None], 3, axis=2)
            depth[:4] = 0
            for folder, values in (
                ("images", pixels),
                ("depths", (depth * 1000).astype(np.uint16)),
            ):
                file = root / part / folder / f"{i}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(values).save(file)
    return root


def benchmark(path: Path, **settings: Any) -> Depth:
    parts = {p: {"images": f"{p}/images", "labels": f"{p}/depths"} for p in ("train", "test")}
    data = {"layout": "folder", "path": str(path), **parts}
    return Depth(data=data, **settings)  # type: ignore[arg-type]


def by_hand(predicted: list[float], truth: list[float]) -> tuple[float, float, float] | None:
    squares, shares, near = [], [], []
    for p, t in zip(predicted, truth, strict=True):
        if 0.001 < t < 10:
            squares.append((p - t) ** 2)
            shares.append(abs(p - t) / t)
            near.append(max(p / t, t / p) < 1.25)
    if not squares:
        return None
    n = len(squares)
    return math.sqrt(sum(squares) / n), sum(shares) / n, sum(near) / n


def test_errors_equal_a_loop_over_pixels_on_1000_images() -> None:
    random = np.random.default_rng(0)
    empty = 0
    for _ in range(1000):
        shape = tuple(random.integers(1, 7, 2))
        truth = random.choice([0, 0.0005, 0.5, 2, 9.99, 10, 11], shape).astype(np.float32)
        truth = np.where(random.random(shape) < 0.5, truth, random.uniform(0, 12, shape))
        truth = truth.astype(np.float32)
        predicted = random.uniform(0.01, 10, shape).astype(np.float32)
        expected = by_hand(predicted.ravel().tolist(), truth.ravel().tolist())
        found = depth_errors(predicted, truth, 0.001, 10.0)
        if expected is None:
            empty += 1
            assert found is None
        else:
            np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)  # type: ignore[arg-type]
    assert empty


def test_nyus_images_are_evaluated_inside_eigens_crop() -> None:
    truth = np.full((480, 640), 2, np.float32)
    predicted = truth.copy()
    predicted[:45] = predicted[471:] = predicted[:, :41] = predicted[:, 601:] = 9
    np.testing.assert_allclose(depth_errors(predicted, truth, 0.001, 10), [0, 0, 1])
    for row, column in ((45, 41), (470, 600), (45, 600), (470, 41)):
        corner = truth.copy()
        corner[row, column] = 9
        assert depth_errors(corner, truth, 0.001, 10)[0] > 0  # type: ignore[index]
    assert depth_errors(predicted[1:], truth[1:], 0.001, 10)[0] > 1  # type: ignore[index]


@pytest.mark.parametrize(
    ("step", "rate", "beta"),
    [(0, 3e-07, 0), (1, 3.234374999607817e-07, 0), (6400, 0.00014025190528383288, 0),
     (12_799, 0.00022529304852436912, 0), (12_800, 0.00022499237244348423, 0.85),
     (20_000, 0.00014018367798558293, 0.8682803357918177),
     (38_399, 1.2e-8, 0.9499999996235045)],
)  # fmt: skip
def test_the_schedule_is_what_the_released_code_prints(step: int, rate: float, beta: float) -> None:
    """The numbers are what its WarmupOneCycleLR gave, run with its own settings."""
    settings = OnlineDepth()
    assert next(islice(settings.rates(), step, None)) == pytest.approx(rate, rel=1e-9)
    assert settings.betas_at(step) == (pytest.approx(beta, rel=1e-9), 0.99)


@pytest.mark.parametrize(("gamma", "expected"), [(0.9, 79), (1.0, 128), (1.1, 208)])
def test_gamma_acts_on_values_of_0_to_255(gamma: float, expected: int) -> None:
    pixels = torch.full((3, 4, 4), 128, dtype=torch.uint8)
    settings = DepthCrops(gamma=(gamma, gamma), brightness=(1, 1), colour=(1, 1), recolour=1)
    found = recoloured(pixels, np.random.default_rng(0), settings)
    assert found.dtype == torch.uint8
    assert (found == expected).all()
    white = torch.full((3, 1, 1), 255, dtype=torch.uint8)
    assert recoloured(white, np.random.default_rng(0), settings).max() == round(
        min(255**gamma, 255)
    )


def test_brightness_and_colour_are_factors() -> None:
    pixels = torch.full((3, 1, 1), 100, dtype=torch.uint8)
    settings = DepthCrops(gamma=(1, 1), brightness=(1.2, 1.2), colour=(0.9, 1.1), recolour=1)
    found = torch.stack(
        [recoloured(pixels, np.random.default_rng(seed), settings) for seed in range(200)]
    )
    assert found.min() in (108, 109)
    assert found.max() in (131, 132)
    assert (found[:, 0] != found[:, 1]).any()  # each channel its own


def test_crops_keep_image_and_depth_together() -> None:
    depth = np.fromfunction(lambda y, x: 1 + x / 200 + y / 300, (480, 640)).astype(np.float32)
    depth[:45] = depth[472:] = depth[:, :43] = depth[:, 608:] = 0  # NYUv2's white border
    level = (depth * 40).round().astype(np.uint8)
    image = Image.fromarray(np.repeat(level[..., None], 3, axis=2))
    settings = DepthCrops(recolour=0)
    unknown = mirrored = 0
    for seed in range(12):
        pixels, metres = depth_crop(image, depth, np.random.default_rng(seed), settings, 416, 544)
        assert pixels.shape == (3, 416, 544)
        assert pixels.dtype == torch.uint8
        known = metres > 0
        difference = (pixels[0][known] - 40 * metres[known]).abs()
        assert difference.median() < 1
        assert known.float().mean() > 0.95
        unknown += int((~known).any())  # corners of rotated images
        mirrored += int(metres[200, 100] > metres[200, 400])
    assert 2 < unknown < 10
    assert 2 < mirrored < 10


def test_colours_change_for_the_image_alone() -> None:
    image, depth = Image.new("RGB", (64, 48), (150, 90, 60)), np.full((48, 64), 3, np.float32)
    colours = set()
    for seed in range(10):
        settings = DepthCrops(rotate=0)
        pixels, metres = depth_crop(image, depth, np.random.default_rng(seed), settings, 32, 48)
        assert (metres == 3).all()
        colours.add(tuple(pixels[:, 0, 0].tolist()))
    assert (150, 90, 60) in colours
    assert 3 < len(colours) < 10


def test_whole_images_are_padded_and_mirrored() -> None:
    encoder, head = Telling(8), DepthHead(DepthHeadSettings(width=16, bins=4)).eval()
    torch.nn.init.normal_(head.linear.weight)
    pixels = np.random.default_rng(0).integers(0, 256, (30, 43, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    (found,) = whole_depths([head], evaluated(encoder), image)
    assert found.shape == (30, 43)
    mirrored = whole_depths([head], evaluated(encoder), Image.fromarray(pixels[:, ::-1].copy()))[0]
    # 43 px are padded by 2 and 3: a mirror image lies one pixel elsewhere.
    assert (found - mirrored.flip(-1)).abs().mean() < (found - mirrored).abs().mean()
    fits = Image.fromarray(pixels[:24, :40].copy())
    (even,) = whole_depths([head], evaluated(encoder), fits)
    (back,) = whole_depths([head], evaluated(encoder), fits.transpose(Image.Transpose(0)))
    torch.testing.assert_close(even, back.flip(-1))
    x = torch.from_numpy(pixels[:24, :40].copy()).permute(2, 0, 1)[None] / 255
    parts = [
        F.interpolate(head.depth(encoder(v).patches)[None], (24, 40), mode="bilinear")[0, 0]
        for v in (x, x.flip(-1))
    ]
    torch.testing.assert_close(even, (parts[0] + parts[1].flip(-1)) / 2)


def test_perfect_features_beat_the_mean_depth_by_far(rooms: Path) -> None:
    variant = {
        "name": "cached",
        "height": 56,
        "width": 72,
        "steps": 120,
        "lr": 0.02,
        "batch_size": 6,
    }
    probe = benchmark(rooms, variant=variant, bins=64, seeds=2)
    outcome = probe.run(probe.open(Path()), evaluated(Telling()))[""]
    rmse = outcome.measures["rmse"]
    assert outcome.headline == "rmse"
    assert not rmse.higher_is_better
    assert rmse.sums.shape == (2, 5, 2)
    assert outcome.baselines["mean depth"] > 1
    assert rmse.value < 0.3 * outcome.baselines["mean depth"]
    assert outcome.measures["delta1"].value > 90
    assert rmse.samples[0] == "test/images/0.png"


def test_the_floor_is_the_training_mean(rooms: Path) -> None:
    probe = benchmark(
        rooms, variant={"name": "cached", "height": 16, "width": 16, "steps": 1}, seeds=1
    )
    train, test = data = probe.open(Path())
    outcome = probe.run(data, evaluated(Telling()))[""]
    known = np.concatenate([d[d > 0] for d in (train.depth(i) for i in range(len(train)))])
    assert outcome.details["mean_depth_m"] == pytest.approx(known.mean(), rel=1e-5)
    errors = [
        by_hand([float(known.mean())] * d.size, d.ravel().tolist())[0]  # type: ignore[index]
        for d in (test.depth(i) for i in range(len(test)))
    ]
    assert outcome.baselines["mean depth"] == pytest.approx(np.mean(errors), rel=1e-5)


@pytest.mark.parametrize("patch_size", [8, 7])
def test_the_papers_training_runs_and_repeats(rooms: Path, patch_size: int) -> None:
    variant = {"name": "online", "steps": 4, "batch_size": 3, "crop": (40, 64), "warmup_steps": 2}
    probe = benchmark(rooms, variant=variant, seeds=2)
    data = probe.open(Path())
    one = probe.run(data, evaluated(Telling(patch_size)))[""]
    encoder = Telling(patch_size).train()
    two = probe.run(data, EvaluatedEncoder(encoder, Features(encoder, workers=5)))[""]
    for name in ("rmse", "abs_rel", "delta1"):
        np.testing.assert_array_equal(one.measures[name].sums, two.measures[name].sums)
    first, second = one.measures["rmse"].sums
    assert (first != second).any()
    assert (one.details["height"], one.details["width"]) == {8: (40, 64), 7: (42, 63)}[patch_size]


def test_the_papers_training_learns(rooms: Path) -> None:
    variant = {"name": "online", "steps": 80, "batch_size": 4, "crop": (40, 64), "lr": 0.02,
               "warmup_steps": 10, "loss_warmup_steps": 5, "recolour": 0}  # fmt: skip
    probe = benchmark(rooms, variant=variant, bins=64, seeds=1)
    outcome = probe.run(probe.open(Path()), evaluated(Telling()))[""]
    assert outcome.measures["rmse"].value < 0.5 * outcome.baselines["mean depth"]


def test_images_smaller_than_the_crop_are_told(rooms: Path) -> None:
    probe = benchmark(rooms, variant="online")
    with pytest.raises(InputError, match=r"is smaller than the crop 416 x 544: set variant.crop"):
        probe.run(probe.open(Path()), evaluated(Telling()))


def test_a_wrong_scale_is_told(rooms: Path) -> None:
    probe = benchmark(rooms, variant="cached")
    data = probe.data.model_copy(update={"depth_scale": 1.0})
    with pytest.raises(InputError, match="correct depth_scale"):
        probe.run(data.open(Path()), evaluated(Telling()))


def test_settings() -> None:
    data: Any = {"layout": "scenes"}
    assert Depth(data=data).protocol == "nyuv2-linear/eupe-v2"
    short = Depth(data=data, variant="cached")  # type: ignore[arg-type]
    assert short.protocol == "linear-depth/cached-v1"
    assert Depth.model_validate(short.model_dump(mode="json")) == short
