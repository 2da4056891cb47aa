from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor
from torch.nn import functional as F

from openeupe.encoders import create
from openeupe.evaluation.benchmark import EvaluatedEncoder
from openeupe.evaluation.features import Features
from openeupe.evaluation.knn import Knn, crop_view, knn_predictions, neighbours


@pytest.fixture(scope="module")
def clusters() -> tuple[Tensor, Tensor, Tensor]:
    """400 labelled features of 7 overlapping classes with lengths from 0.5 to 2, 1000 queries."""
    g = torch.Generator().manual_seed(0)
    centres = torch.randn(7, 16, generator=g)
    labels = torch.randint(0, 7, (400,), generator=g)

    def around(classes: Tensor) -> Tensor:
        points = centres[classes] + 1.5 * torch.randn(len(classes), 16, generator=g)
        return points * (0.5 + 1.5 * torch.rand(len(classes), 1, generator=g))

    return around(labels), labels, around(torch.randint(0, 7, (1000,), generator=g))


def predict(train: Tensor, labels: Tensor, queries: Tensor, k: int, **how: Any) -> Tensor:
    return knn_predictions(train, labels, queries, [k], **how)[k]


def by_hand(similarities: list[float], labels: list[int], ks: list[int]) -> list[int]:
    """The released code's rule, spelled out: weights are a softmax over the largest k (200) of
    cosine / 0.07, and a smaller k sums the first k of these.
    """
    ranked = sorted(range(len(labels)), key=lambda i: -similarities[i])[: max(ks)]
    powers = [math.exp(similarities[i] / 0.07) for i in ranked]
    softmax = [p / sum(powers) for p in powers]
    answers = []
    for k in ks:
        votes: dict[int, float] = {}
        for i, weight in list(zip(ranked, softmax, strict=True))[:k]:
            votes[labels[i]] = votes.get(labels[i], 0) + weight
        answers.append(max(votes, key=votes.__getitem__))
    return answers


def test_equals_the_protocol_by_hand_on_a_thousand_queries(
    clusters: tuple[Tensor, Tensor, Tensor],
) -> None:
    train, labels, queries = clusters
    ks = [10, 20, 100, 200]
    cosines = F.cosine_similarity(queries[:, None].double(), train[None].double(), dim=2)
    expected = [by_hand(row, labels.tolist(), ks) for row in cosines.tolist()]
    found = knn_predictions(train, labels, queries, ks, chunk=64)
    for place, k in enumerate(ks):
        assert found[k].tolist() == [answers[place] for answers in expected]
    assert len({answers[0] for answers in expected}) == 7
    assert found[10].tolist() != found[200].tolist()


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_equals_scikit_learn(metric: str, clusters: tuple[Tensor, Tensor, Tensor]) -> None:
    train, labels, queries = (x.numpy() for x in clusters)
    weights = {
        "cosine": lambda d: np.exp((1 - d) / 0.07),
        "l2": lambda d: np.exp((d.min(1, keepdims=True) ** 2 - d**2) / 0.14),
    }[metric]
    ours = predict(*clusters, k=20, metric=metric)
    theirs = KNeighborsClassifier(20, metric=metric, weights=weights, algorithm="brute")
    np.testing.assert_array_equal(ours, theirs.fit(train, labels).predict(queries))


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_majority_equals_scikit_learn_where_there_is_no_tie(
    metric: str, clusters: tuple[Tensor, Tensor, Tensor]
) -> None:
    train, labels, queries = (x.numpy() for x in clusters)
    theirs = KNeighborsClassifier(10, metric=metric, algorithm="brute").fit(train, labels)
    shares = np.sort(theirs.predict_proba(queries), axis=1)
    clear = shares[:, -1] > shares[:, -2]
    ours = predict(*clusters, k=10, metric=metric, vote="majority").numpy()
    np.testing.assert_array_equal(ours[clear], theirs.predict(queries)[clear])
    assert 600 < clear.sum() < 1000


def test_the_database_is_searched_in_blocks(
    clusters: tuple[Tensor, Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    train, _, queries = clusters
    for metric in ("cosine", "l2"):
        whole = neighbours(train, queries, 50, metric=metric)
        with monkeypatch.context() as patch:
            patch.setattr("openeupe.evaluation.knn._BLOCK", 37)
            blocks = neighbours(train, queries, 50, metric=metric, chunk=99)
        torch.testing.assert_close(blocks[0], whole[0])
        assert (blocks[1] == whole[1]).float().mean() > 0.999  # rounding may swap two


def test_of_equals_the_lower_row_comes_first() -> None:
    train = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    similarity, rows = neighbours(train, torch.tensor([[3.0, 0.0]]), 4)
    assert rows.tolist() == [[1, 2, 3, 0]]
    torch.testing.assert_close(similarity, torch.tensor([[1.0, 1.0, 1.0, 0.0]]))
    distance, _ = neighbours(train, torch.tensor([[3.0, 0.0]]), 4, metric="l2")
    torch.testing.assert_close(distance, -torch.tensor([[4.0, 4.0, 4.0, 10.0]]) / 2)


def test_a_tied_majority_goes_to_the_nearest() -> None:
    train = torch.tensor([[1.0, 0.3], [1.0, 0.4], [1.0, 0.1], [1.0, 0.6]])
    labels = torch.tensor([0, 0, 1, 1])
    query = torch.tensor([[1.0, 0.0]])
    assert predict(train, labels, query, k=4, vote="majority").tolist() == [1]
    assert predict(train, labels, -query, k=4, vote="majority").tolist() == [1]
    assert predict(train, labels, query, k=3, vote="majority").tolist() == [0]


def test_length_of_a_feature_matters_to_l2_alone() -> None:
    train, labels = torch.eye(3), torch.tensor([0, 1, 2])
    queries = torch.tensor([[100.0, 1.0, 0.0], [0.0, 0.001, 0.0]])
    assert predict(train, labels, queries, k=1).tolist() == [0, 1]
    train = torch.tensor([[1.0, 1.0], [9.0, 1.0]])
    query = torch.tensor([[3.0, 1.0]])
    assert predict(train, torch.tensor([0, 1]), query, k=1).tolist() == [1]
    assert predict(train, torch.tensor([0, 1]), query, k=1, metric="l2").tolist() == [0]


def test_a_near_neighbour_outvotes_many_far_ones() -> None:
    train = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    labels = torch.tensor([0, 1, 1, 1])
    query = torch.tensor([[1.0, 0.2]])
    assert predict(train, labels, query, k=4).tolist() == [0]
    assert predict(train, labels, query, k=4, vote="majority").tolist() == [1]


def test_sides_are_fitted_to_the_patches() -> None:
    encoder = create("test_vit")
    for patch, resolution, short in ((16, 224, 256), (14, 224, 256), (20, 220, 251)):
        encoder.patch_size = patch
        view = crop_view(encoder, 224, 256)
        assert (view.height, view.width, view.short) == (resolution, resolution, short)


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    """Two classes told apart by colour; twelve training and five test images."""
    random = np.random.default_rng(0)
    for split, counts in (("train", (5, 7)), ("test", (3, 2))):
        for name, count, colour in zip(("red", "blue"), counts, (0, 2), strict=True):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = random.integers(0, 100, (40, 50, 3), dtype=np.uint8)
                pixels[..., colour] += 150
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return tmp_path


@pytest.mark.parametrize("features", ["cls", "mean", "cls+mean"])
def test_the_benchmark_evaluates_every_image(colours: Path, features: str) -> None:
    settings = {"layout": "folder", "path": str(colours)}
    benchmark = Knn(data=settings, k=(1, 3, 200), crop=32, short=36, features=features)
    encoder = create("raw_pixels")
    opened = benchmark.open(Path("/elsewhere"))
    outcome = benchmark.run(opened, EvaluatedEncoder(encoder, Features(encoder)))[""]
    assert outcome.headline == "top1@1"
    assert list(outcome.measures) == ["top1@1", "top1@3", "top1@200"]
    measure = outcome.measures["top1@1"]
    assert measure.value == 100
    assert list(measure.samples) == [f"blue/{i}.png" for i in range(2)] + [
        f"red/{i}.png" for i in range(3)
    ]
    assert outcome.baselines == {"majority class": pytest.approx(40)}  # blue is commoner in train
    assert outcome.details["classes"] == 2


def test_features_are_what_their_names_say(colours: Path) -> None:
    settings = {"layout": "folder", "path": str(colours)}
    encoder = create("test_vit").eval()
    features = Features(encoder)
    train, _ = Knn(data=settings).open(Path())
    view = crop_view(encoder, 64, 64)
    benchmark = Knn(data=settings, features="cls+mean")
    joined = benchmark._features(features, train, view)
    patches = features.patches(train, view).float().mean((2, 3))
    expected = [F.normalize(features.cls(train, view)), F.normalize(patches)]
    torch.testing.assert_close(joined, torch.cat(expected, 1), atol=1e-3, rtol=0)


def test_noise_of_equal_names_in_both_parts_scores_near_chance(tmp_path: Path) -> None:
    """Train and test images share names and sizes in bytes, and nothing else."""
    random = np.random.default_rng(0)
    for part in ("train", "test"):
        for name in ("heads", "tails"):
            folder = tmp_path / part / name
            folder.mkdir(parents=True)
            for number in range(30):
                pixels = random.integers(0, 256, (32, 32, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.bmp")
    settings = Knn(data={"layout": "folder", "path": tmp_path}, k=(1,), short=32, crop=32)  # type: ignore[arg-type]
    data = settings.open(Path())
    assert data[0].fingerprint != data[1].fingerprint
    encoder = create("raw_pixels")
    outcome = settings.run(data, EvaluatedEncoder(encoder, Features(encoder)))[""]
    assert 30 < outcome.measures["top1@1"].value < 70


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"vote": "majority", "temperature": 0.1}, "a majority has no temperature"),
        ({"data": {"layout": "scenes", "names": "names.yaml"}}, "does not read data.names"),
    ],
)
def test_settings_without_effect_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Knn.model_validate({"data": {"layout": "scenes"}, **settings})
