from __future__ import annotations

import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score

from openeupe.encoders import Tokens
from openeupe.evaluation.fidelity import RidgeReadout, fidelity
from openeupe.quickstart import _VIEWS, _spread


def linear(n: int, noise: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    weights = torch.randn(6, 4, generator=torch.Generator().manual_seed(9))
    x = torch.randn(n, 6, generator=g)
    return x, x @ weights + 3 + noise * torch.randn(n, 4, generator=g)


def test_a_linear_relation_is_found_and_noise_is_not() -> None:
    (x, y), (x_test, y_test) = linear(300, 0.0), linear(100, 0.0, seed=1)
    readout = RidgeReadout(x, torch.arange(300))
    assert readout.r2(y, x_test, y_test) > 0.9999
    unrelated = torch.randn(300, 4, generator=torch.Generator().manual_seed(2))
    assert abs(readout.r2(unrelated, x_test, unrelated[:100].flip(0))) < 0.1


def test_equals_scikit_learn_at_the_shrinkage_it_chose() -> None:
    (x, y), (x_test, y_test) = linear(40, 2.0), linear(200, 2.0, seed=1)
    ours = RidgeReadout(x, torch.zeros(40, dtype=torch.long)).r2(y, x_test, y_test)
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
    r2 = fidelity(
        train,
        {"self": train, "coarse": pooled_train},
        test,
        {"self": test, "coarse": pooled_test},
        torch.arange(60),
    )
    assert min(min(kinds.values()) for kinds in r2.values()) > 0.99
    other = fidelity(
        train, {"x": tokens(60, 7, 4)}, test, {"x": tokens(30, 8, 4)}, torch.arange(60)
    )
    assert max(other["x"].values()) < 0.1


def test_a_coarse_encoder_knows_less_of_a_fine_grid() -> None:
    fine_train, fine_test = tokens(60, 0, grid=4), tokens(30, 1, grid=4)
    coarse_train, coarse_test = (
        Tokens(t.cls, torch.nn.functional.avg_pool2d(t.patches, 2)) for t in (fine_train, fine_test)
    )
    r2 = fidelity(coarse_train, {"x": fine_train}, coarse_test, {"x": fine_test}, torch.arange(60))
    assert 0.05 < r2["x"]["patches"] < 0.6


def test_every_fifth_photo_chooses_the_shrinkage_whatever_the_folders_size() -> None:
    """Quickstart looks at every k-th photo of a large folder: no k leaves nothing to choose on."""
    for count in range(12, 3001):
        photos = torch.tensor(list(_spread(range(count), _VIEWS["train"])))  # type: ignore[arg-type]
        groups = photos.repeat_interleave(2)  # two crops of each
        readout = RidgeReadout(torch.zeros(len(groups), 1), groups)
        assert readout.validation is not None, count
        chosen = groups[readout.validation]
        assert len(chosen.unique()) == -(-len(photos) // 5), count
        assert not set(chosen.tolist()) & set(groups[~readout.validation].tolist()), count


@pytest.mark.parametrize("gap", [1, 2, 5, 10])
def test_gaps_between_photos_do_not_change_what_is_read_out(gap: int) -> None:
    """A folder of 1,153 to 1,440 photos, of which every fifth is looked at: R2 was too low."""
    (x, y), (x_test, y_test) = linear(300, 0.0), linear(100, 0.0, seed=1)
    assert RidgeReadout(x, gap * torch.arange(300)).r2(y, x_test, y_test) > 0.9999
