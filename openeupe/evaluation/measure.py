"""Metrics as functions of sums, so that one bootstrap serves all.

Each evaluation saves, for every independent sample (an image, a pair of images, a scene), a vector
whose *sum over samples* determines the metric: hits and their count for an accuracy, intersections
and unions for mIoU, true and false positives for F1. Resampling samples and summing again then
gives the metric's sampling distribution, exactly as if the whole evaluation had been repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def _ratio(above: Array, below: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(below > 0, above / below, np.nan)


def mean(sums: Array) -> Array:
    """`[..., (sum of values, count)]` -> their mean: accuracies, per-image errors."""
    return _ratio(sums[..., 0], sums[..., 1])


def class_mean(sums: Array) -> Array:
    """`[..., 2 * C]` = (sums of C classes, counts of C classes) -> mean over classes present.

    PCK (hits, keypoints) and mIoU (intersections, unions): a class that has no count is skipped.
    """
    above, below = np.split(sums, 2, axis=-1)
    ratios = _ratio(above, below)
    present = ~np.isnan(ratios)
    return _ratio(np.nansum(ratios, axis=-1), present.sum(axis=-1).astype(float))


def class_sum(sums: Array) -> Array:
    """As `class_mean`, but the ratios are added: MME's perception score (0..200 per subtask)."""
    above, below = np.split(sums, 2, axis=-1)
    return np.nansum(_ratio(above, below), axis=-1)


def f1(sums: Array) -> Array:
    """`[..., (true positives, false positives, false negatives)]` -> F1."""
    true, wrong, missed = sums[..., 0], sums[..., 1], sums[..., 2]
    return _ratio(2 * true, 2 * true + wrong + missed)


def class_f1(sums: Array) -> Array:
    """`[..., 3 * C]` = (true positives, false positives, false negatives) of C classes -> mean F1.

    POPE: its classes are its splits. A class without any of the three is skipped.
    """
    scores = f1(np.stack(np.split(sums, 3, axis=-1), axis=-1))
    present = ~np.isnan(scores)
    return _ratio(np.nansum(scores, axis=-1), present.sum(axis=-1).astype(float))


def best_f(sums: Array) -> Array:
    """`[..., 4 * T]` = (hits, predicted, found, wanted) of T thresholds -> best F over thresholds.

    The F-measure at the optimal data-set scale, as BSDS defines it: precision = hits / predicted,
    recall = found / wanted, both over the whole set, and the one best threshold.
    """
    hits, predicted, found, wanted = np.split(sums, 4, axis=-1)
    precision, recall = np.nan_to_num(_ratio(hits, predicted)), np.nan_to_num(_ratio(found, wanted))
    return np.nan_to_num(_ratio(2 * precision * recall, precision + recall)).max(axis=-1)


def r2(sums: Array) -> Array:
    """`[..., (squared errors, squared distances from the training mean)]` -> R2."""
    return 1 - _ratio(sums[..., 0], sums[..., 1])


Reduction = Literal["mean", "class_mean", "class_sum", "f1", "class_f1", "best_f", "r2"]
REDUCTIONS: dict[Reduction, Callable[[Array], Array]] = {
    "mean": mean,
    "class_mean": class_mean,
    "class_sum": class_sum,
    "f1": f1,
    "class_f1": class_f1,
    "best_f": best_f,
    "r2": r2,
}


@dataclass(frozen=True)
class Measure:
    """A metric with the per-sample sums that it is computed from.

    reduction: the name of a function in `REDUCTIONS`.
    samples: `[N]` names of the independent samples; those of two encoders must be the same to be
        compared. Questions about one image are one sample, since their errors are correlated.
    sums: `[seeds, N, M]` float64: what each sample adds, for each training seed (one seed where
        nothing is trained).
    scale: the value is this times the reduction (100 for per cent).
    higher_is_better: False for errors.
    unit: what a table prints after the value: "%", "m" or "".
    trained: whether something was trained, so that a single seed leaves its noise unknown.
    """

    reduction: Reduction
    samples: Sequence[str]
    sums: Array
    scale: float = 1.0
    higher_is_better: bool = True
    unit: str = ""
    trained: bool = False

    def __post_init__(self) -> None:
        if self.sums.ndim != 3 or self.sums.shape[1] != len(self.samples):
            raise ValueError(f"sums {self.sums.shape} do not fit {len(self.samples)} samples")

    @property
    def per_seed(self) -> Array:
        """The value of each training seed `[seeds]`."""
        return self.scale * REDUCTIONS[self.reduction](self.sums.sum(axis=1))

    @property
    def value(self) -> float:
        """The value: the mean over training seeds."""
        return float(self.per_seed.mean())

    def first_seeds(self, count: int) -> Measure:
        """The same measure with at most `count` training seeds."""
        return replace(self, sums=self.sums[:count])


def mean_measure(
    samples: Sequence[str],
    values: Array,
    *,
    scale: float = 1.0,
    higher_is_better: bool = True,
    unit: str = "",
    trained: bool = False,
) -> Measure:
    """A plain mean over samples, of values `[N]` or `[seeds, N]`.

    Equal names are joined to one sample (several questions about one image).
    """
    values = np.atleast_2d(np.asarray(values, dtype=np.float64))
    return joined(
        "mean",
        samples,
        np.stack([values, np.ones_like(values)], axis=-1),
        scale=scale,
        higher_is_better=higher_is_better,
        unit=unit,
        trained=trained,
    )


def joined(
    reduction: Reduction,
    samples: Sequence[str],
    sums: Array,
    *,
    scale: float = 1.0,
    higher_is_better: bool = True,
    unit: str = "",
    trained: bool = False,
) -> Measure:
    """A measure of `sums` `[seeds, rows, M]`, adding up rows of equal names."""
    names, place = np.unique(np.asarray(samples), return_inverse=True)
    total = np.zeros((sums.shape[0], len(names), sums.shape[2]))
    for seed in range(sums.shape[0]):
        np.add.at(total[seed], place, sums[seed])
    return Measure(reduction, names.tolist(), total, scale, higher_is_better, unit, trained)


@dataclass(frozen=True)
class Outcome:
    """The outcome of one benchmark for one encoder.

    headline: which of `measures` the table shows.
    measures: by name, such as "pck@0.1" and "pck@0.05".
    baselines: scores without any ability on the headline metric ("chance", "blind").
    details: anything worth saving that is not a metric with an interval: per-class values,
        resolution actually used, number of images (JSON values only).
    answers: per-question records of a vision-language benchmark, one JSON line each.
    """

    headline: str
    measures: dict[str, Measure]
    baselines: dict[str, float] = field(default_factory=dict)
    details: dict[str, object] = field(default_factory=dict)
    answers: list[dict[str, object]] = field(default_factory=list)
