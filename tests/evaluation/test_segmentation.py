from __future__ import annotations

import shutil
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional as F

from openeupe.encoders import create
from openeupe.encoders.encoder import Encoder, Tokens
from openeupe.errors import InputError
from openeupe.evaluation.benchmark import EvaluatedEncoder
from openeupe.evaluation.features import Features
from openeupe.evaluation.measure import Measure
from openeupe.evaluation.segmentation import (
    OnlineSegmentation,
    Segmentation,
    areas,
    sliding_logits,
    windows,
)
from openeupe.evaluation.suite import load_suite
from openeupe.heads import segmentation
from openeupe.heads.segmentation import (
    SegmentationHead,
    SegmentationHeadSettings,
    upsampled_loss,
)

COLOURS = np.array([[200, 40, 40], [40, 200, 40], [40, 40, 200], [220, 220, 90]], np.uint8)


class Telling(Encoder):
    """An encoder whose tokens are the mean colours of the patches: here they say the class."""

    def __init__(self, patch_size: int = 8) -> None:
        super().__init__(
            name="telling",
            args={},
            cls_dim=3,
            patch_dim=3,
            patch_size=patch_size,
            resolution=64,
            mean=(0.5, 0.5, 0.5),
            std=(0.25, 0.25, 0.25),
        )

    def tokens(self, pixels: Tensor) -> Tokens:
        return Tokens(pixels.mean((2, 3)), F.avg_pool2d(pixels, self.patch_size))


def evaluated(encoder: Encoder) -> EvaluatedEncoder:
    return EvaluatedEncoder(encoder, Features(encoder))


@pytest.fixture(scope="module")
def ade(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Blocks of four colours in ADE20K's layout, with values 1 to 4 and a border of 0."""
    root = tmp_path_factory.mktemp("ade")
    random = np.random.default_rng(0)
    for part, count in (("training", 8), ("validation", 5)):
        for i in range(count):
            mask = np.kron(random.integers(1, 5, (4, 6)), np.ones((16, 16))).astype(np.uint8)
            pixels = COLOURS[mask - 1] + random.integers(0, 9, (*mask.shape, 3), dtype=np.uint8)
            mask[:3] = 0
            for folder, values, ending in (
                ("images", pixels, "png"),
                ("annotations", mask, "png"),
            ):
                file = root / "ADEChallengeData2016" / folder / part / f"{i}.{ending}"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(values).save(file)
    return root


def benchmark(path: Path, **settings: Any) -> Segmentation:
    return Segmentation(data={"layout": "ade20k", "path": str(path)}, **settings)  # type: ignore[arg-type]


def four_classes(path: Path, **settings: Any) -> Segmentation:
    """The same images as a plain folder with no more classes than there are."""
    parts = {
        part: {"images": f"images/{name}", "labels": f"annotations/{name}"}
        for part, name in (("train", "training"), ("test", "validation"))
    }
    inside = str(path / "ADEChallengeData2016")
    data = {"layout": "folder", "path": inside, "classes": 4, "zero_is_ignore": True, **parts}
    return Segmentation(data=data, **settings)  # type: ignore[arg-type]


def reference_miou(truths: list[np.ndarray], found: list[np.ndarray], classes: int) -> float:
    """From one confusion matrix of the whole set; classes in neither are skipped."""
    t, p = (np.concatenate([x.ravel() for x in parts]) for parts in (truths, found))
    matrix = np.zeros((classes, classes))
    np.add.at(matrix, (t[t != 255], p[t != 255]), 1)
    hits, unions = np.diag(matrix), matrix.sum(0) + matrix.sum(1) - np.diag(matrix)
    present = unions > 0
    return float(np.mean(hits[present] / unions[present]))


def test_miou_equals_a_confusion_matrix_on_1000_sets() -> None:
    random = np.random.default_rng(0)
    for _ in range(1000):
        classes = int(random.integers(2, 12))
        truths, found, rows = [], [], []
        for _ in range(random.integers(1, 4)):
            shape = tuple(random.integers(2, 9, 2))
            truth = random.integers(0, random.integers(1, classes + 1), shape)
            guess = np.where(random.random(shape) < 0.5, truth, random.integers(0, classes, shape))
            truth = np.where(random.random(shape) < 0.2, 255, truth)
            truth.flat[0] = 0  # a set without any label has no mIoU
            truths.append(truth.astype(np.uint8))
            found.append(guess)
            rows.append(areas(torch.from_numpy(guess), torch.from_numpy(truths[-1]), classes))
        measure = Measure("class_mean", [str(i) for i in range(len(rows))], np.stack(rows)[None])
        assert measure.value == pytest.approx(reference_miou(truths, found, classes), abs=1e-6)


def test_windows_are_shifted_inside() -> None:
    assert windows(512, 683, 512, 341) == [(0, 0), (0, 171)]
    assert windows(512, 512, 512, 341) == [(0, 0)]
    assert windows(512, 853, 512, 341) == [(0, 0), (0, 341)]
    assert windows(512, 854, 512, 341) == [(0, 0), (0, 341), (0, 342)]
    assert windows(600, 513, 512, 341) == [(0, 0), (0, 1), (88, 0), (88, 1)]
    assert windows(30, 20, 32, 16) == [(0, 0)]


def test_logits_of_windows_are_averaged() -> None:
    encoder = Telling()
    head = SegmentationHead(SegmentationHeadSettings(width=3, classes=tuple("abcde"))).eval()
    pixels = torch.randint(0, 256, (3, 32, 44), dtype=torch.uint8)
    (found,) = sliding_logits([head], evaluated(encoder), pixels, 32, 21)
    left, right = (
        F.interpolate(head(encoder(part[None] / 255).patches), (32, 32), mode="bilinear")[0]
        for part in (pixels[:, :, :32], pixels[:, :, 12:])
    )
    torch.testing.assert_close(found[:, :, :12], left[:, :, :12])
    torch.testing.assert_close(found[:, :, 12:32], (left[:, :, 12:] + right[:, :, :20]) / 2)
    torch.testing.assert_close(found[:, :, 32:], right[:, :, 20:])


@pytest.mark.parametrize(
    ("step", "rate"),
    [(0, 1.0e-9), (1, 1.0e-9), (2, 6.676493083500112e-07), (750, 0.00048998380795835),
     (1500, 0.0009618833173083499), (1501, 0.0009965296112632268), (5000, 0.0009619397662556434),
     (20_000, 5e-4), (39_999, 1.5421257049119675e-12)],
)  # fmt: skip
def test_the_learning_rate_is_what_the_released_code_prints(step: int, rate: float) -> None:
    """The numbers are what its WarmupOneCycleLR gave, run with its own settings."""
    found = next(islice(OnlineSegmentation().rates(), step, None))
    assert found == pytest.approx(rate, rel=1e-9)


def test_the_released_protocols_loss_is_a_mean_over_all_pixels(ade: Path) -> None:
    """Twice as many pixels without a label: half the step of a linear optimizer's gradient."""
    sizes = {"short": 32, "crop": 32, "stride": 20}
    probe = benchmark(ade, variant={"name": "online", "steps": 1, **sizes}, seeds=1)
    seen: list[bool] = []

    def spied(*given: object, over_all: bool = False) -> torch.Tensor:
        seen.append(over_all)
        return upsampled_loss(*given, over_all=over_all)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segmentation, "upsampled_loss", spied)
        probe.run(probe.open(Path()), evaluated(Telling(8)))
        cached = benchmark(ade, variant={"name": "cached", "steps": 1}, seeds=1)
        cached.run(cached.open(Path()), evaluated(Telling(8)))
    assert seen == [True, False]


def test_a_label_of_the_first_protocol_is_not_given_to_the_second() -> None:
    suite = load_suite("eupe")
    assert suite.benchmarks["ade20k"].protocol == "ade20k-linear/eupe-v2"
    assert suite.benchmarks["nyuv2"].protocol == "nyuv2-linear/eupe-v2"
    data = {"layout": "scenes"}
    assert Segmentation(data=data, variant="cached").protocol == "linear-segmentation/cached-v1"  # type: ignore[arg-type]
    # `evaluate --suite eupe benchmarks.ade20k.variant=cached`: no longer the paper's protocol.
    shorter = load_suite(
        "eupe", ["benchmarks.ade20k.variant=cached", "benchmarks.nyuv2.variant=cached"]
    )
    assert shorter.benchmarks["ade20k"].protocol == "linear-segmentation/cached-v1"
    assert shorter.benchmarks["nyuv2"].protocol == "linear-depth/cached-v1"
    own = Segmentation(data=data, variant="cached", protocol="mine/v3")  # type: ignore[arg-type]
    assert own.protocol == "mine/v3"


def test_perfect_features_reach_the_top(ade: Path) -> None:
    variant = {
        "name": "cached",
        "height": 64,
        "width": 96,
        "label_stride": 4,
        "steps": 200,
        "lr": 0.03,
    }
    probe = four_classes(ade, variant=variant, seeds=2)
    outcome = probe.run(probe.open(Path()), evaluated(Telling(4)))[""]
    # Blocks' borders are where bilinear logits cross, of tokens 4 px apart: all but exact.
    assert outcome.measures["miou"].value > 97
    assert outcome.measures["pixel_accuracy"].value > 98
    assert outcome.measures["miou"].sums.shape == (2, 5, 8)
    assert outcome.measures["miou"].samples[0] == "images/validation/0.png"
    iou: Any = outcome.details["iou"]
    assert list(iou) == ["1", "2", "3", "4"]
    assert np.mean(list(iou.values())) == pytest.approx(outcome.measures["miou"].value, abs=0.1)


def test_the_floor_is_what_one_class_scores(ade: Path) -> None:
    probe = benchmark(
        ade, variant={"name": "cached", "height": 32, "width": 32, "steps": 1}, seeds=1
    )
    _, test = data = probe.open(Path())
    outcome = probe.run(data, evaluated(Telling()))[""]
    common = test.classes.index(str(outcome.details["most_frequent_class"]))
    truths = [test.mask(i) for i in range(len(test))]
    expected = reference_miou(truths, [np.full_like(t, common) for t in truths], 150)
    assert outcome.baselines["most frequent class"] == pytest.approx(100 * expected)


@pytest.mark.parametrize("patch_size", [8, 7])
def test_the_papers_training_runs_and_repeats(ade: Path, patch_size: int) -> None:
    """Patch 7 does not divide the crop of 32 pixels: 35 does, and the other sizes follow."""
    sizes = {"short": 32, "crop": 32, "stride": 20}
    variant = {"name": "online", "steps": 4, "batch_size": 3, "warmup_steps": 2, **sizes}
    probe = benchmark(ade, variant=variant, seeds=2)
    data = probe.open(Path())
    state = torch.get_rng_state()
    one = probe.run(data, evaluated(Telling(patch_size)))[""]
    assert torch.equal(torch.get_rng_state(), state)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        encoder = Telling(patch_size).train()  # evaluated in eval mode; its mode comes back
        slow = EvaluatedEncoder(encoder, Features(encoder, workers=5))
        two = probe.run(data, slow)[""]
        assert encoder.training
    np.testing.assert_array_equal(one.measures["miou"].sums, two.measures["miou"].sums)
    first, second = one.measures["miou"].sums
    assert (first != second).any()
    assert one.details["crop"] == {8: 32, 7: 35}[patch_size]
    assert one.details["stride"] == {8: 20, 7: 22}[patch_size]
    pixels = sum((data[1].mask(i) != 255).sum() for i in range(5))
    assert one.measures["pixel_accuracy"].sums[0, :, 1].sum() == pixels


def test_the_papers_training_learns(ade: Path) -> None:
    variant = {"name": "online", "steps": 60, "batch_size": 4, "warmup_steps": 5, "lr": 0.05,
               "short": 64, "crop": 64, "stride": 42, "hue": 0.02, "dropout": 0}  # fmt: skip
    probe = four_classes(ade, variant=variant, seeds=1)
    outcome = probe.run(probe.open(Path()), evaluated(Telling()))[""]
    assert outcome.measures["miou"].value > 85


def test_settings() -> None:
    data: Any = {"layout": "scenes"}
    assert Segmentation(data=data).protocol == "ade20k-linear/eupe-v2"
    short = Segmentation(data=data, variant="cached")  # type: ignore[arg-type]
    assert short.protocol == "linear-segmentation/cached-v1"
    assert Segmentation.model_validate(short.model_dump(mode="json")) == short
    with pytest.raises(ValidationError, match="stride <= crop <= short"):
        OnlineSegmentation(crop=600)


def test_a_broken_image_stops_with_its_name(ade: Path, tmp_path: Path) -> None:
    shutil.copytree(ade, tmp_path / "copy")
    file = tmp_path / "copy/ADEChallengeData2016/images/validation/2.png"
    Image.open(file).save(file.with_suffix(".jpg"))
    file.unlink()
    whole = file.with_suffix(".jpg").read_bytes()
    file.with_suffix(".jpg").write_bytes(whole[: len(whole) // 2])  # its header is whole
    variant = {"name": "online", "steps": 1, "batch_size": 1, "short": 32, "crop": 32, "stride": 20}
    probe = four_classes(tmp_path / "copy", variant=variant, seeds=1)
    with pytest.raises(InputError, match=r"2\.jpg.* replace the file"):
        probe.run(probe.open(Path()), evaluated(create("raw_pixels")))
