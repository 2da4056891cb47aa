from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional as F

from openeupe.datasets.words import WordFolders, WordScenes
from openeupe.encoders import Encoder, Tokens
from openeupe.errors import InputError
from openeupe.evaluation.benchmark import EvaluatedEncoder
from openeupe.evaluation.features import Features
from openeupe.evaluation.measure import REDUCTIONS
from openeupe.evaluation.text_regions import TextRegions, at_thresholds, confusion


class Plates:
    """Gray pictures with red plates for text: a `MaskedImages`."""

    classes = ("background", "text")

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.seed = count, seed
        self.fingerprint = f"plates-{seed}-{count}"

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        return f"plate-{index}"

    def mask(self, index: int) -> NDArray[np.uint8]:
        rng = np.random.default_rng((self.seed, index))
        mask = np.zeros((96, 128), np.uint8)
        y, x = rng.integers(0, 60, 2)
        mask[y : y + 20, x : x + 50] = 1
        return mask

    def read(self, index: int) -> Image.Image:
        red = self.mask(index)[..., None] * np.array([160, 0, 0], np.uint8)
        return Image.fromarray(red + np.uint8(60))


class Redness(Encoder):
    """Perfect features: how red each 4-pixel cell is. With `pooled`, only the whole patch."""

    def __init__(self, pooled: bool = False) -> None:
        super().__init__(
            name="redness", args={}, cls_dim=3, patch_dim=16,
            patch_size=16, resolution=128, mean=(0.0,) * 3, std=(1.0,) * 3,
        )  # fmt: skip
        self.pooled = pooled

    def tokens(self, pixels: Tensor) -> Tokens:
        red = F.avg_pool2d(pixels[:, :1] - pixels[:, 1:2], 4)
        found = F.pixel_unshuffle(red, 4)
        if self.pooled:
            found = found.mean(1, keepdim=True).expand_as(found)
        return Tokens(pixels.mean((2, 3)), found)


def benchmark(**settings: object) -> TextRegions:
    quick = {"resolution": 128, "steps": 80, "lr": 0.06, "warmup_steps": 5, "seeds": 2}
    return TextRegions.model_validate({"data": {"layout": "scenes"}, **quick, **settings})


def test_perfect_features_solve_it_and_lost_positions_cost() -> None:
    train, test = Plates(16, 0), Plates(8, 1)
    outcomes = {}
    for pooled in (False, True):
        encoder = Redness(pooled)
        outcomes[pooled] = benchmark().run(
            (train, test), EvaluatedEncoder(encoder, Features(encoder))
        )[""]  # type: ignore[arg-type]
    seen = outcomes[False]
    assert seen.headline == "text_iou"
    assert seen.measures["text_iou"].value > 90
    assert seen.measures["text_iou"].sums.shape == (2, 8, 2)
    assert outcomes[True].measures["text_iou"].value < seen.measures["text_iou"].value - 5
    assert 4 < seen.baselines["all is text"] < 10  # 20 * 50 of 96 * 128, some cut off
    iou = seen.measures["text_iou"].value / 100
    assert seen.measures["f1"].value == pytest.approx(200 * iou / (1 + iou), abs=0.1)
    assert seen.measures["best_f1"].value >= seen.measures["f1"].value - 0.1


def test_figures_equal_a_plain_count_on_a_thousand_cases() -> None:
    rng = np.random.default_rng(0)
    for _ in range(1000):
        size = int(rng.integers(5, 60))
        text = rng.random(size) < 0.4
        probability = rng.random(size).astype(np.float32)
        said = probability > 0.5
        sums = confusion(probability, text)
        here, there = set(np.flatnonzero(said)), set(np.flatnonzero(text))
        true, wrong, missed = sums
        if here | there:
            f1 = 2 * len(here & there) / (len(here) + len(there))
            assert REDUCTIONS["f1"](sums) == pytest.approx(f1)
            iou = REDUCTIONS["class_mean"](np.array([true, true + wrong + missed]))
            assert iou == pytest.approx(len(here & there) / len(here | there))
        hits, predicted, found, wanted = np.split(at_thresholds(probability, text), 4)
        for number in (0, 24, 49, 98):
            over = probability >= (number + 1) / 100
            assert hits[number] == found[number] == (over & text).sum()
            assert predicted[number] == over.sum()
            assert wanted[number] == text.sum()


def photos(folder: Path, count: int) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        shade = np.random.default_rng(number).integers(0, 256, (80, 100, 3), dtype=np.uint8)
        Image.fromarray(shade).save(folder / f"{number}.png")


def test_photos_run_through_the_benchmark(tmp_path: Path) -> None:
    photos(tmp_path / "train", 6)
    photos(tmp_path / "test", 4)
    data = {"layout": "folder", "train": "train", "test": "test", "train_count": 5}
    settings = benchmark(data=data, resolution=64, steps=5, seeds=1)
    train, test = settings.open(tmp_path)
    assert (len(train), len(test)) == (5, 4)
    assert train.fingerprint != test.fingerprint
    assert train.fingerprint == settings.open(tmp_path)[0].fingerprint
    encoder = Redness()
    outcome = settings.run((train, test), EvaluatedEncoder(encoder, Features(encoder)))[""]
    assert 0 < outcome.baselines["all is text"] < 60
    assert all(str(tmp_path) not in name for name in outcome.measures["f1"].samples)


@pytest.mark.parametrize("part", ["train_count", "test_count"])
def test_all_scenes_cannot_be_asked_for(part: str) -> None:
    """null means all: of a folder there is a last photo, of scenes there is none."""
    with pytest.raises(ValidationError, match=part):
        WordScenes(**{part: None})
    assert WordFolders(train=Path("a"), test=Path("b"), **{part: None})


def test_scenes_need_no_files(tmp_path: Path) -> None:
    train, test = WordScenes(train_count=3, test_count=2).open(tmp_path)
    assert (len(train), len(test)) == (3, 2)
    assert train.read(0).size == test.read(0).size


def test_copies_of_the_photos_that_were_learnt_are_refused(tmp_path: Path) -> None:
    for part in ("a", "b"):
        photos(tmp_path / part, 3)
    with pytest.raises(InputError, match="train and test are the same 3 images"):
        WordFolders(train=Path("a"), test=Path("b"), train_count=2).open(tmp_path)


def test_bad_photos_are_one_clear_line(tmp_path: Path) -> None:
    photos(tmp_path / "a" / "inner", 2)
    photos(tmp_path / "b", 2)
    for train, test in (("a", "a"), ("a", "a/inner"), ("a/inner", "a")):
        with pytest.raises(InputError, match="share images"):
            WordFolders(train=Path(train), test=Path(test)).open(tmp_path)
    with pytest.raises(InputError, match="is not a folder"):
        WordFolders(train=Path("a"), test=Path("none")).open(tmp_path)
    (tmp_path / "b" / "0.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"0.png cannot be read as an image"):
        WordFolders(train=Path("a"), test=Path("b")).open(tmp_path)
