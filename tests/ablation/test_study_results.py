"""Power against cases whose answers are known."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from scipy.special import stdtrit

from openeupe.ablation.power import power
from openeupe.ablation.report import ArmResults, _table
from openeupe.ablation.study import ArmConfig, LoadedStudy, TableConfig
from openeupe.ablation.study_results import StudyResults
from openeupe.evaluation.measure import Measure, mean_measure
from openeupe.evaluation.statistics import difference


def test_the_resolvable_difference_is_that_of_students_t() -> None:
    """With three seeds and a test set without noise, by the closed form of two degrees."""
    found = power([(seeded([1, 1.1, 0.9]), seeded([0.0, 0.0, 0.0]))], tests=1)
    assert found is not None

    def quantile(share: float) -> float:
        return (2 * share - 1) * (2 / (1 - (2 * share - 1) ** 2)) ** 0.5

    noise = (found.seed_std**2 / 3 + found.item_error**2) ** 0.5
    expected = (quantile(0.975) + quantile(0.8)) * noise
    assert found.resolvable == pytest.approx(expected, rel=1e-12)


def seeded(means: list[float], items: int = 400) -> Measure:
    random = np.random.default_rng(0)
    values = np.array(means)[:, None] + random.standard_normal(items)
    return mean_measure([str(i) for i in range(items)], values)


def test_power_grows_with_seeds_and_shrinks_with_their_spread() -> None:
    base = seeded([0.0, 0.0, 0.0])
    calm, wild = (power([(seeded(m), base)], tests=5) for m in ([1, 1.1, 0.9], [0, 2, 1]))
    assert calm is not None
    assert wild is not None
    assert calm.seed_std == pytest.approx(0.1)
    assert calm.item_error == pytest.approx(0, abs=1e-6)  # the same noise on every item
    assert calm.resolvable < 1 < wild.resolvable
    assert calm.seeds_needed is not None
    assert wild.seeds_needed is not None
    assert calm.seeds_needed <= 3 < wild.seeds_needed
    more = power([(seeded([1, 1.1, 0.9] * 2), seeded([0.0] * 6))], tests=5)
    assert more is not None
    assert more.resolvable < calm.resolvable
    assert power([(seeded([1.0]), base)], 1) is None


def test_the_resolvable_difference_is_shown_four_times_out_of_five() -> None:
    """By simulation of seeds whose spread is known, with the test that the study uses."""
    random = np.random.default_rng(1)
    shown, tries, spread, seeds = 0, 60, 1.0, 5
    reach = (stdtrit(seeds - 1, 0.975) + stdtrit(seeds - 1, 0.8)) * spread / np.sqrt(seeds)
    for _ in range(tries):
        draws = random.standard_normal(seeds) * spread
        gap = difference(
            seeded((reach + draws).tolist(), 20), seeded([0.0] * seeds, 20), same_seeds=True
        )
        shown += gap.p < 0.05
    assert 0.6 < shown / tries < 0.97


def test_seeds_in_pairs_take_what_they_share_out_of_the_noise() -> None:
    shared = np.array([0.0, 5.0, -5.0])
    a, b = seeded((shared + 1).tolist()), seeded(shared.tolist())
    assert difference(a, b, same_seeds=True).p < 0.01
    assert difference(a, b).p > 0.2


def test_of_a_study_that_was_cut_off_the_seeds_of_both_are_compared() -> None:
    more, fewer = seeded([1.0, 1.1, 5.0]), seeded([0.0, 0.2])
    arms = {name: ArmConfig(recipe="any") for name in ("more", "fewer")}
    table = TableConfig(rows=("more", "fewer"), reference="fewer")
    outcome = StudyResults.__new__(StudyResults)
    outcome.loaded = cast(LoadedStudy, SimpleNamespace(
        study=SimpleNamespace(arms=arms, tables={"t": table}), benchmarks=["c"]
    ))  # fmt: skip
    outcome._measures = {("more", "c"): more, ("fewer", "c"): fewer}
    (found,) = outcome.compare("t")
    assert found.gain.delta == pytest.approx(0.95)
    assert found.power is not None
    assert found.power.seed_std == pytest.approx(np.std([1.0, 0.9], ddof=1))


def outcome_of(measures: dict[str, Measure], *encoders: str) -> StudyResults:
    """A study of these arms, all trained but the `encoders`, against the first."""
    arms = {
        name: ArmConfig(encoder=name) if name in encoders else ArmConfig(recipe="any")
        for name in measures
    }
    table = TableConfig(rows=tuple(measures), reference=next(iter(measures)))
    outcome = StudyResults.__new__(StudyResults)
    outcome.loaded = cast(LoadedStudy, SimpleNamespace(
        study=SimpleNamespace(arms=arms, tables={"t": table}), benchmarks=["c"]
    ))  # fmt: skip
    outcome._measures = {(name, "c"): measure for name, measure in measures.items()}
    return outcome


@pytest.mark.parametrize("seeds", [2, 6])
def test_arms_are_compared_with_an_encoder_whose_probe_has_other_seeds(seeds: int) -> None:
    reference = replace(seeded([0.0, 0.1] * (seeds // 2)), trained=True)
    encoder = replace(seeded([1.0, 1.1, 0.9]), trained=True)
    (found,) = outcome_of({"direct": reference, "untrained": encoder}, "untrained").compare("t")
    assert found.gain.delta == pytest.approx(0.95)
    assert found.power is None
    assert found.verdict == "better"


def test_an_arm_of_one_seed_is_not_called_better() -> None:
    one, six = (replace(seeded(means), trained=True) for means in ([5.0], [0.0, 0.1] * 3))
    outcome = outcome_of({"six": six, "one": one})
    (found,) = outcome.compare("t")
    assert found.p < 0.05
    assert found.verdict == "one seed: no verdict"
    arms = {name: ArmResults(1, None, {}) for name in ("six", "one")}
    text = _table(outcome.loaded, "t", arms, [found])
    assert " † |" in text
    assert "† One seed: interval and p are about the test items alone." in text
    assert "▲ |" not in text


def test_seeds_that_are_not_shared_have_no_power_in_pairs() -> None:
    """Three seeds of a training and three of a probe: no pair of them drew the same."""
    measures = {"direct": seeded([0.0, 0.1, 0.2]), "untrained": seeded([1.0, 1.2, 1.1])}
    (found,) = outcome_of(measures, "untrained").compare("t")
    assert found.power is None
    (found,) = outcome_of(measures).compare("t")
    assert found.power is not None
