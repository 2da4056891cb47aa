import numpy as np
import pytest

from openeupe.evaluation.measure import REDUCTIONS, Measure, joined, mean_measure


def figure(metric: str, totals: list[float]) -> float:
    return float(REDUCTIONS[metric](np.array(totals)))


def test_metrics_are_the_textbook_ones() -> None:
    assert figure("mean", [3, 4]) == 0.75
    # Two classes of which one never occurs: it is left out, not counted as zero.
    assert figure("class_mean", [2, 1, 0, 4, 2, 0]) == 0.5
    assert figure("class_sum", [100, 50, 0, 1, 1, 0]) == 150
    assert figure("f1", [6, 2, 4]) == pytest.approx(2 * 0.75 * 0.6 / (0.75 + 0.6))
    # Thresholds (a) precision 1, recall 0.5; (b) precision 0.5, recall 1: equal F; (c) nothing.
    assert figure("best_f", [2, 4, 0, 2, 8, 0, 2, 4, 0, 4, 4, 4]) == pytest.approx(2 / 3)


def test_nothing_counted_is_not_a_number() -> None:
    assert np.isnan(figure("mean", [0, 0]))
    assert np.isnan(figure("class_mean", [0, 0, 0, 0]))
    assert figure("best_f", [0, 0, 0, 5]) == 0


def test_equal_names_are_one_sample() -> None:
    measure = mean_measure(["b", "a", "b"], np.array([1.0, 0.0, 0.0]), scale=100, unit="%")
    assert measure.samples == ["a", "b"]
    assert measure.value == pytest.approx(100 / 3)
    assert measure.sums[0].tolist() == [[0, 1], [1, 2]]


def test_seeds_are_averaged_after_the_metric() -> None:
    sums = np.array([[[1.0, 0, 0]], [[1.0, 2, 0]]])
    measure = joined("f1", ["x"], sums)
    assert measure.per_seed.tolist() == [1.0, 0.5]
    assert measure.value == 0.75


def test_sums_must_fit_their_samples() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        Measure("mean", ["a"], np.zeros((1, 2, 2)))
