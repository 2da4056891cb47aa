from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score

import openeupe
from openeupe.encoders import Tokens
from openeupe.errors import InputError
from openeupe.evaluation.fidelity import fidelity
from openeupe.evaluation.results import Results
from openeupe.evaluation.ridge import RidgeReadout, r2

from ..tiny_recipe import write_images


def linear(n: int, noise: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    weights = torch.randn(6, 4, generator=torch.Generator().manual_seed(9))
    x = torch.randn(n, 6, generator=g)
    return x, x @ weights + 3 + noise * torch.randn(n, 4, generator=g)


def test_a_linear_relation_is_found_and_noise_is_not() -> None:
    (x, y), (x_test, y_test) = linear(300, 0.0), linear(100, 0.0, seed=1)
    readout = RidgeReadout(x, torch.arange(300))
    assert r2(readout.sums(y, x_test, y_test)) > 0.9999
    unrelated = torch.randn(300, 4, generator=torch.Generator().manual_seed(2))
    assert abs(r2(readout.sums(unrelated, x_test, unrelated[:100].flip(0)))) < 0.1


def test_equals_scikit_learn_at_the_shrinkage_it_chose() -> None:
    (x, y), (x_test, y_test) = linear(40, 2.0), linear(200, 2.0, seed=1)
    readout = RidgeReadout(x, torch.zeros(40, dtype=torch.long))
    ours = r2(readout.sums(y, x_test, y_test))
    # One group only: nothing to choose on, so the middle shrinkage of the covariance's mean.
    centred = (x - x.mean(0)).double()
    alpha = 0.1 * float((centred.T @ centred).diagonal().mean())
    model = Ridge(alpha=alpha).fit(x.double(), y.double())
    prediction = model.predict(x_test.double())
    total = ((y_test - y.mean(0)) ** 2).sum()
    expected = 1 - ((y_test.numpy() - prediction) ** 2).sum() / float(total)
    assert abs(ours - expected) < 1e-5
    assert abs(ours - r2_score(y_test, prediction, multioutput="variance_weighted")) < 0.05


def tokens(n: int, seed: int, grid: int) -> Tokens:
    g = torch.Generator().manual_seed(seed)
    return Tokens(torch.randn(n, 5, generator=g), torch.randn(n, 3, grid, grid, generator=g))


def test_an_encoder_predicts_itself_and_its_own_coarser_grid() -> None:
    train, test = tokens(60, 0, grid=4), tokens(30, 1, grid=4)
    pooled_train, pooled_test = (
        Tokens(t.cls, torch.nn.functional.avg_pool2d(t.patches, 2)) for t in (train, test)
    )
    targets = {"self": (train, test), "coarse": (pooled_train, pooled_test)}
    found = fidelity((train, test), targets, torch.arange(60))
    assert set(found) == {"self-cls", "self-patches", "coarse-cls", "coarse-patches"}
    assert {len(sums) for sums in found.values()} == {30}  # one row for each test view
    assert min(map(r2, found.values())) > 0.99
    other = fidelity((train, test), {"x": (tokens(60, 7, 4), tokens(30, 8, 4))}, torch.arange(60))
    assert max(map(r2, other.values())) < 0.1


def test_a_coarse_encoder_knows_less_of_a_fine_grid() -> None:
    fine_train, fine_test = tokens(60, 0, grid=4), tokens(30, 1, grid=4)
    coarse_train, coarse_test = (
        Tokens(t.cls, torch.nn.functional.avg_pool2d(t.patches, 2)) for t in (fine_train, fine_test)
    )
    found = fidelity((coarse_train, coarse_test), {"x": (fine_train, fine_test)}, torch.arange(60))
    assert 0.05 < r2(found["x-patches"]) < 0.6


@pytest.mark.parametrize("gap", [1, 2, 5, 10])
def test_gaps_between_photos_do_not_change_what_is_read_out(gap: int) -> None:
    """A folder of 1,153 to 1,440 photos, of which every fifth is looked at: R2 was too low."""
    (x, y), (x_test, y_test) = linear(300, 0.0), linear(100, 0.0, seed=1)
    assert r2(RidgeReadout(x, gap * torch.arange(300)).sums(y, x_test, y_test)) > 0.9999


@pytest.fixture
def suite(tmp_path: Path) -> dict[str, Any]:
    """Fidelity to pixels and to a small network, on 16 images of which some are held out."""
    images = write_images(tmp_path / "photos", 16)
    fidelity = {
        "kind": "fidelity",
        "protocol": "fidelity/test-v1",
        "domain": "experts",
        "data": {"layout": "heldout", "path": str(images), "heldout": 0.5},
        "experts": {
            "pixels": {"encoder": "raw_pixels", "resolution": 32},
            "net": {"encoder": "untrained:test_resnet", "resolution": 64},
        },
        "resolution": [32, 64],
        "crop": 64,
        "train_crops": 32,
        "test_crops": 18,
    }
    return {"name": "small", "benchmarks": {"fidelity": fidelity}}


def evaluate(suite: dict[str, Any], encoder: str, folder: Path) -> Results:
    return openeupe.evaluate(encoder, suite, out=folder, device="cpu")


def test_an_expert_predicts_itself_at_one_resolution(suite: dict[str, Any], tmp_path: Path) -> None:
    expert = evaluate(suite, "raw_pixels", tmp_path / "pixels")
    student = evaluate(suite, "untrained:test_vit", tmp_path / "vit")
    names = [f"fidelity-{name}-{kind}" for name in ("pixels", "net") for kind in ("cls", "patches")]
    for results, metrics in ((expert, ["r2@32"]), (student, ["r2@32", "r2@64"])):
        assert list(results.benchmarks) == names
        assert [list(one.metrics) for one in results.benchmarks.values()] == [metrics] * 4
    own = expert.benchmarks["fidelity-pixels-patches"].score
    other = student.benchmarks["fidelity-pixels-patches"].score
    assert own is not None
    assert other is not None
    assert own.value > other.value  # type: ignore[operator]
    assert own.value > 0.9  # type: ignore[operator]
    assert own.low < own.value < own.high  # type: ignore[operator]
    assert (own.samples, expert.benchmarks[names[0]].details["test_crops"]) == (9, 18)
    compared = openeupe.compare(expert, student)
    assert [row.benchmark for row in compared.pairs[0].rows] == names
    assert "training mean" in str(expert.table())


def test_it_is_measured_again_for_another_expert_only(
    suite: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = evaluate(suite, "untrained:test_vit", tmp_path / "vit")
    with monkeypatch.context() as patch:
        patch.setattr("openeupe.evaluation.fidelity.Fidelity.run", None)
        assert evaluate(suite, "untrained:test_vit", tmp_path / "vit") == first.model_copy(
            update={"date": Results.open(tmp_path / "vit").date}
        )
    suite["benchmarks"]["fidelity"]["experts"]["net"] = {
        "encoder": "untrained:test_vit2", "resolution": 32
    }  # fmt: skip
    second = evaluate(suite, "untrained:test_vit", tmp_path / "again")
    name = "fidelity-net-cls"
    assert second.benchmarks[name].data[:2] == first.benchmarks[name].data[:2]
    with pytest.raises(InputError, match="other settings"):
        openeupe.compare(first, second)
