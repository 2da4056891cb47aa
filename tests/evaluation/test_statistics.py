from itertools import product

import numpy as np
import pytest

from openeupe.evaluation.measure import Measure, joined, mean_measure
from openeupe.evaluation.statistics import (
    Difference,
    corrected,
    difference,
    holm,
    interval,
    mean_difference,
    verdict,
)


def names(n: int) -> list[str]:
    return [f"{i:05}" for i in range(n)]


def test_interval_of_an_accuracy_is_the_binomial_one() -> None:
    values = np.repeat([1.0, 0.0], [700, 300])
    found = interval(mean_measure(names(1000), values, scale=100))
    assert found.value == 70
    error = 100 * np.sqrt(0.7 * 0.3 / 1000)
    assert found.error == pytest.approx(error, rel=0.1)
    assert found.low == pytest.approx(70 - 1.96 * error, abs=0.5)
    assert found.high == pytest.approx(70 + 1.96 * error, abs=0.5)
    assert np.isnan(found.training)


def test_interval_covers_the_truth_nineteen_times_in_twenty() -> None:
    random = np.random.default_rng(0)
    hits = 0
    for seed in range(100):
        found = interval(mean_measure(names(200), random.random(200) < 0.6), seed=seed)
        hits += found.low <= 0.6 <= found.high
    assert 88 <= hits <= 100


def test_clusters_widen_the_interval() -> None:
    # Ten questions about each image, all right or all wrong: 100 images tell no more than 100.
    values = np.repeat(np.random.default_rng(0).random(100) < 0.5, 10)
    alone = interval(mean_measure(names(1000), values))
    clustered = interval(mean_measure([f"{i // 10}" for i in range(1000)], values))
    assert clustered.error == pytest.approx(alone.error * np.sqrt(10), rel=0.15)


def test_a_metric_that_is_no_mean_has_the_error_of_resampling_by_hand() -> None:
    random = np.random.default_rng(1)
    sums = random.integers(0, 5, size=(1, 80, 3)).astype(float)
    by_hand = []
    for _ in range(3000):
        true, wrong, missed = sums[0, random.integers(0, 80, 80)].sum(axis=0)
        by_hand.append(2 * true / (2 * true + wrong + missed))
    found = interval(joined("f1", names(80), sums))
    assert found.error == pytest.approx(np.std(by_hand), rel=0.08)
    assert found.low == pytest.approx(np.percentile(by_hand, 2.5), abs=0.01)


def test_rare_classes_do_not_pull_the_interval_down() -> None:
    # 40 classes, each in one image of 40, each predicted wrongly somewhere else: an image that is
    # lost from a draw would make its class count as wrong everywhere.
    random = np.random.default_rng(5)
    sums = np.zeros((1, 40, 80))
    for image in range(40):
        union = random.integers(50, 100)
        sums[0, image, image] = random.integers(10, union)
        sums[0, image, 40 + image] = union
        sums[0, image, 40 + random.integers(40)] += 5
    measure = Measure("class_mean", names(40), sums)
    found = interval(measure)
    assert found.low < found.value < found.high
    below, above = found.value - found.low, found.high - found.value
    assert 0.4 < below / above < 2.5


def test_training_spread_is_reported_apart() -> None:
    values = np.array([[1.0] * 50 + [0.0] * 50, [1.0] * 60 + [0.0] * 40, [1.0] * 70 + [0.0] * 30])
    found = interval(mean_measure(names(100), values))
    assert found.value == pytest.approx(0.6)
    assert found.training == pytest.approx(0.1)


def test_permutation_p_is_that_of_every_swap() -> None:
    random = np.random.default_rng(3)
    a, b = random.random(10), random.random(10) + 0.2
    gap = a - b
    every = [abs(np.dot(signs, gap)) for signs in product((-1, 1), repeat=10)]
    exact = np.mean([value >= abs(gap.sum()) - 1e-12 for value in every])
    found = difference(mean_measure(names(10), a), mean_measure(names(10), b))
    assert found.delta == pytest.approx(gap.mean())
    assert found.p == pytest.approx(exact, abs=0.015)


def test_pairing_finds_what_two_intervals_hide() -> None:
    hard = np.random.default_rng(0).random(400)
    a = mean_measure(names(400), (hard < 0.55).astype(float))
    b = mean_measure(names(400), (hard < 0.50).astype(float))
    assert interval(a).low < interval(b).high  # the intervals overlap
    found = difference(a, b)
    assert found.p < 0.001
    assert found.low > 0


def test_alike_encoders_are_rarely_called_different() -> None:
    random = np.random.default_rng(7)
    called = 0
    for seed in range(60):
        a, b = (mean_measure(names(100), random.random(100) < 0.7) for _ in range(2))
        called += difference(a, b, seed=seed).p < 0.05
    assert called <= 9


def test_training_noise_can_explain_a_difference() -> None:
    # The same gap on every sample, but the seeds of a probe disagree by more than that.
    steady, shaky = np.zeros((3, 200)), np.zeros((3, 200))
    shaky += np.array([[0.0], [0.1], [-0.09]]) + 0.01
    quiet = difference(mean_measure(names(200), steady + 0.01), mean_measure(names(200), steady))
    noisy = difference(mean_measure(names(200), shaky), mean_measure(names(200), steady))
    assert quiet.p < 0.001
    assert noisy.p > 0.5
    assert noisy.low < 0 < noisy.high


def test_what_was_changed_twice_is_seen_through_what_each_pair_hides() -> None:
    """Two pairs whose own seeds disagree in opposite ways: their mean agrees in every seed."""
    random = np.random.default_rng(0)
    sway = np.array([[0.3], [-0.3], [0.1]])
    base = [mean_measure(names(200), random.random((3, 200)) * 0.01) for _ in range(2)]
    moved = [
        mean_measure(names(200), b.sums[..., 0] + 0.1 + way * sway)
        for b, way in zip(base, (1, -1), strict=True)
    ]
    pairs = list(zip(moved, base, strict=True))
    alone = [difference(a, b, same_seeds=True) for a, b in pairs]
    both = mean_difference(pairs, same_seeds=True)
    assert both.delta == pytest.approx(np.mean([one.delta for one in alone]))
    assert min(one.p for one in alone) > 0.3
    assert both.p < 0.001
    assert 0.09 < both.low < both.high < 0.11
    # Without seeds in common the two spreads add instead of cancelling.
    assert mean_difference(pairs).p > 0.3
    assert mean_difference(pairs[:1], same_seeds=True) == alone[0]


def test_equal_results_are_no_difference() -> None:
    same = mean_measure(names(30), np.ones(30))
    found = difference(same, same)
    assert (found.delta, found.p) == (0, 1)


def test_other_samples_are_refused() -> None:
    a, b = mean_measure(["x"], np.ones(1)), mean_measure(["y"], np.ones(1))
    with pytest.raises(ValueError, match="same samples"):
        difference(a, b)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_randomness_is_that_of_the_seed() -> None:
    measure: Measure = mean_measure(names(50), np.random.default_rng(0).random(50))
    assert repr(interval(measure)) == repr(interval(measure))
    assert interval(measure).low != interval(measure, seed=1).low


@pytest.mark.parametrize(("many", "few"), [(6, 3), (2, 3), (3, 2), (5, 3), (6, 1)])
def test_unequal_numbers_of_seeds_are_compared(many: int, few: int) -> None:
    random = np.random.default_rng(4)
    shape = random.random(300) * 0.1
    a = mean_measure(names(300), shape + 0.05 + 0.001 * random.standard_normal((many, 1)))
    b = mean_measure(names(300), shape + 0.001 * random.standard_normal((few, 1)))
    found = difference(a, b)
    assert found.delta == pytest.approx(a.value - b.value)
    assert found.low < found.delta < found.high
    assert found.p < 0.05
    back = difference(b, a)
    assert back.delta == -found.delta
    assert back.p == pytest.approx(found.p, abs=0.01)
    assert difference(a, a).p == 1


def test_with_unequal_seeds_every_seed_weighs_the_same() -> None:
    """Two seeds against three whose means are equal: no swap of items may favour a seed."""
    a = mean_measure(names(40), np.array([[0.0], [1.0]]) + np.zeros(40))
    b = mean_measure(names(40), np.array([[0.5], [0.4], [0.6]]) + np.zeros(40))
    found = difference(a, b)
    assert found.delta == pytest.approx(0)
    assert found.p == 1


def test_unequal_spreads_are_evaluated_as_welch_evaluates_them() -> None:
    """Six calm seeds against three wild ones: called different no oftener than Welch's test."""
    random = np.random.default_rng(9)
    called, tries = 0, 100
    for seed in range(tries):
        calm = mean_measure(names(4), 0.1 * random.standard_normal((6, 1)) + np.zeros(4))
        wild = mean_measure(names(4), 1.0 * random.standard_normal((3, 1)) + np.zeros(4))
        called += difference(calm, wild, seed=seed).p < 0.05
    assert called / tries < 0.1


def test_one_training_is_told_since_its_noise_is_unknown() -> None:
    values = np.random.default_rng(0).random((3, 100))
    three = mean_measure(names(100), values, trained=True)
    one = mean_measure(names(100), values[0] + 0.5, trained=True)
    fixed = mean_measure(names(100), values[0] + 0.5)
    assert difference(one, three).one_seed
    assert difference(three.first_seeds(1), fixed).one_seed
    assert not difference(three, three).one_seed
    assert not difference(fixed, three).one_seed
    assert verdict(difference(one, three), 0.001) == "one seed: no verdict"
    assert verdict(difference(one, three), 0.2) == "no difference shown"
    assert verdict(difference(fixed, three), 0.001) == "better"
    assert verdict(difference(three, fixed), 0.001) == "worse"


def test_what_one_seed_cannot_show_does_not_ease_the_correction_of_the_rest() -> None:
    sure, one = Difference(1, 0, 2, 0.02), Difference(1, 0, 2, 0.001, one_seed=True)
    assert corrected([one, sure]) == pytest.approx([0.002, 0.04])
    assert corrected([sure, sure]) == holm([0.02, 0.02])


def test_a_reference_that_several_pairs_share_brings_its_noise_once() -> None:
    """(a + b) / 2 minus one reference: its spread does not average out over the pairs."""
    shaky = mean_measure(names(200), np.array([[0.5], [-0.5], [0.1]]) + np.zeros(200))
    steady = [mean_measure(names(200), np.full((3, 200), 0.3)) for _ in range(4)]
    alone = difference(steady[0], shaky)
    shared = mean_difference([(one, shaky) for one in steady])
    assert shared.high - shared.low == pytest.approx(alone.high - alone.low, rel=0.01)
    assert shared.p == pytest.approx(alone.p, abs=0.01)
