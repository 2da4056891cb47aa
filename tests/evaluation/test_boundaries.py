from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import maximum_bipartite_matching
from torch import Tensor
from torch.nn import functional as F

from openeupe.encoders import Encoder, Tokens
from openeupe.evaluation.benchmark import EvaluatedEncoder
from openeupe.evaluation.boundaries import Boundaries, Target, score, target_of
from openeupe.evaluation.edge_match import label_boundaries, matched, ridges, thinned
from openeupe.evaluation.features import Features
from openeupe.evaluation.measure import best_f


def most_pairs(predicted: NDArray[np.int64], truth: NDArray[np.bool_], reach: float) -> int:
    """A maximum one-to-one matching of one threshold, by another program."""
    true = np.argwhere(truth)
    if not len(predicted) or not len(true):
        return 0
    near = ((predicted[:, None] - true[None]) ** 2).sum(-1) <= reach**2
    return int((maximum_bipartite_matching(csr_matrix(near), perm_type="column") >= 0).sum())


def test_counts_equal_a_reference_in_a_thousand_cases() -> None:
    rng = np.random.default_rng(0)
    crowded = 0
    for _ in range(100):
        shape = tuple(rng.integers(3, 16, 2))
        truth = rng.random(shape) < rng.random() / 2
        valid = rng.random(shape) < 0.9
        target = Target(truth & valid, valid, float(rng.random() * 3))
        stays = rng.random(shape) < rng.random()
        probability = rng.random(shape).astype(np.float32)
        thin = thinned(stays & (probability >= 0.01))
        hits, predicted, found, wanted = np.split(score(stays, probability, target), 4)
        for number in range(4, 99, 9):  # 11 thresholds of each
            passes = thin & valid & (probability >= (number + 1) / 100)
            expected = most_pairs(np.argwhere(passes), target.lines, target.reach)
            assert hits[number] == found[number] == expected
            assert predicted[number] == passes.sum()
            assert wanted[number] == target.lines.sum()
            crowded += 0 < expected < min(passes.sum(), target.lines.sum())
    assert crowded > 200  # the matching was not trivial


def test_each_pixel_is_paired_once() -> None:
    truth = np.zeros((5, 9), bool)
    truth[2, 4] = True
    around = np.argwhere(np.ones((5, 9), bool))
    assert matched(around, np.ones(45, np.int64), truth, 3.0).tolist() == [1]


def test_the_number_of_pairs_is_that_of_a_least_cost_assignment() -> None:
    """As the benchmark does it: outliers cost more than any pair."""
    rng = np.random.default_rng(1)
    for _ in range(50):
        truth = rng.random((9, 9)) < 0.3
        predicted, true = np.argwhere(rng.random((9, 9)) < 0.3), np.argwhere(truth)
        distance = np.sqrt(((predicted[:, None] - true[None]) ** 2.0).sum(-1))
        cost = np.where(distance <= 1.5, distance, 1000.0)
        rows, columns = linear_sum_assignment(cost)
        expected = (cost[rows, columns] < 1000).sum()
        found = matched(predicted, np.ones(len(predicted), np.int64), truth, 1.5)
        assert found.tolist() == [expected]


def test_boundaries_lie_between_labels_and_not_beside_unlabelled_pixels() -> None:
    labels = np.zeros((20, 30), np.uint8)
    labels[:, 10:] = 1
    labels[:, 20:] = 255
    lines = label_boundaries(labels)
    assert lines.sum() >= 18  # thinning may take an end
    assert set(np.nonzero(lines)[1]) == {9}


def test_thinning_keeps_lines_whole_and_one_pixel_wide() -> None:
    thick = np.zeros((40, 40), bool)
    thick[10:13, 5:35] = True
    for offset in range(3):
        thick[np.arange(15, 35), np.arange(15, 35) - offset] = True
    lines = thinned(thick)
    assert (lines & ~thick).sum() == 0
    assert (lines[:, 8:32].sum(0)[:5] == 1).all()
    assert not (lines[:-1, :-1] & lines[1:, :-1] & lines[:-1, 1:] & lines[1:, 1:]).any()
    assert 45 <= lines.sum() <= 60
    one = np.eye(12, dtype=bool)
    assert (thinned(one) == one).all()


@pytest.mark.parametrize("flip", [False, True])
def test_thinning_keeps_diagonal_staircases(flip: bool) -> None:
    """As borders between labels are drawn; Zhang and Suen's rule deletes them."""
    labels = np.tri(40, dtype=np.uint8)[:, ::-1] if flip else np.tri(40, dtype=np.uint8)
    assert 36 <= label_boundaries(labels).sum() <= 42


@pytest.mark.parametrize("degrees", [0, 20, 45, 70, 90, 135, 160])
def test_crests_of_a_line_are_thin_at_any_angle(degrees: int) -> None:
    ys, xs = np.mgrid[-32:32, -32:32].astype(np.float64)
    across = xs * np.cos(np.radians(degrees)) + ys * np.sin(np.radians(degrees)) - 0.3
    stays, _ = ridges(torch.from_numpy(-(across**2) / 20)[None].clamp(min=-8), sigma=1.0)
    inner = thinned(stays[0, 8:56, 8:56].numpy())
    assert 44 <= inner.sum() <= 52  # whole and thin: 48 rows or columns are crossed
    assert np.abs(across[8:56, 8:56][inner]).max() < 1.3  # on the crest, nowhere else


def test_a_saturated_map_has_thin_crests() -> None:
    logits = torch.full((1, 40, 40), -30.0)
    logits[0, :, 18:24] = 30
    stays, _ = ridges(logits)
    assert stays[0].sum(1).max() <= 2


def test_a_margin_around_unlabelled_pixels_is_not_evaluated() -> None:
    labels = np.zeros((20, 30), np.uint8)
    labels[10:] = 1
    labels[:, 25:] = 255
    target = target_of(labels, 2.5)
    assert target.valid[:, :22].all()
    assert not target.valid[:, 22:].any()
    assert target.lines.sum() >= 20
    assert not (target.lines & ~target.valid).any()


class Blobs:
    """Pictures of coloured regions, whose masks are their colours: a `MaskedImages`."""

    classes = ("a", "b", "c", "d")

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.seed = count, seed
        self.fingerprint = f"blobs-{seed}-{count}"

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        return f"blob-{index}"

    def mask(self, index: int) -> NDArray[np.uint8]:
        rng = np.random.default_rng((self.seed, index))
        centres, kinds = rng.random((8, 2)) * (96, 128), rng.integers(0, 4, 8).astype(np.uint8)
        ys, xs = np.mgrid[:96, :128]
        distance = (ys[..., None] - centres[:, 0]) ** 2 + (xs[..., None] - centres[:, 1]) ** 2
        return kinds[distance.argmin(-1)]

    def read(self, index: int) -> Image.Image:
        return Image.fromarray(self.mask(index) * 60 + 40).convert("RGB")


class Edges(Encoder):
    """Perfect features: how much the picture changes in each 4-pixel cell; or noise."""

    def __init__(self, blind: bool = False) -> None:
        super().__init__(
            name="edges", args={}, cls_dim=3, patch_dim=16,
            patch_size=16, resolution=128, mean=(0.0,) * 3, std=(1.0,) * 3,
        )  # fmt: skip
        self.blind = blind

    def tokens(self, pixels: Tensor) -> Tokens:
        gray = F.pad(pixels[:, :1], (1, 1, 1, 1), mode="replicate")
        change = (gray[..., 1:-1, 1:-1] - gray[..., 1:-1, 2:]).abs()
        change += (gray[..., 1:-1, 1:-1] - gray[..., 2:, 1:-1]).abs()
        found = F.pixel_unshuffle(F.max_pool2d((change > 0.1).float(), 4), 4)
        g = torch.Generator().manual_seed(int(pixels.sum()))
        return Tokens(
            pixels.mean((2, 3)), torch.randn(found.shape, generator=g) if self.blind else found
        )


def benchmark(**settings: object) -> Boundaries:
    quick = {
        "resolution": 128,
        "steps": 60,
        "lr": 0.03,
        "warmup_steps": 5,
        "seeds": 2,
        "tolerance": 0.025,
    }
    return Boundaries.model_validate({"data": {"layout": "scenes"}, **quick, **settings})


def test_perfect_features_solve_it_and_noise_does_not() -> None:
    train, test = Blobs(16, 0), Blobs(8, 1)
    outcomes = {}
    for blind in (False, True):
        encoder = Edges(blind)
        outcomes[blind] = benchmark().run(
            (train, test), EvaluatedEncoder(encoder, Features(encoder))
        )[""]  # type: ignore[arg-type]
    seen = outcomes[False].measures["ods_f"]
    assert seen.value > 0.9
    assert seen.sums.shape == (2, 8, 4 * 99)
    assert list(seen.samples) == [f"blob-{i}" for i in range(8)]
    assert outcomes[True].measures["ods_f"].value < 0.6
    assert 0 < outcomes[False].baselines["mean boundary map"] < 0.6
    assert outcomes[False].details["cell_pixels"] == 4


def test_f_of_the_set_is_not_the_mean_of_images() -> None:
    """Sums over images first, then one threshold for all (ODS)."""
    one, other = np.zeros((2, 4 * 99))
    one[:] = np.repeat([8, 10, 8, 10], 99)
    other[:] = np.repeat([1, 30, 1, 2], 99)
    precision, recall = 9 / 40, 9 / 12
    assert best_f(one + other) == pytest.approx(2 * precision * recall / (precision + recall))


def test_scenes_run_through_the_benchmark(tmp_path: Path) -> None:
    settings = benchmark(
        data={"layout": "scenes", "count": 6, "test_count": 3, "resolution": 96},
        resolution=96, steps=10, seeds=1,
    )  # fmt: skip
    encoder = Edges()
    outcome = settings.run(settings.open(tmp_path), EvaluatedEncoder(encoder, Features(encoder)))[
        ""
    ]
    assert 0 < outcome.measures["ods_f"].value < 1
