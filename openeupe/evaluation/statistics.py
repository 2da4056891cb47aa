"""Is it noise? Bootstrap intervals and paired tests on any measure, and Holm's correction.

Two sources of noise are separate: which samples the test set happens to hold (reweighted here,
whole clusters at a time: images, pairs, scenes), and which seed a probe happened to be trained
with (the spread over seeds). A comparison of two encoders adds both. As in Welch's test, each side
has its own number of seeds and its own spread. A side that was trained once has no known spread:
such a comparison is only about the test items, and gets no verdict.

The bootstrap is Rubin's Bayesian one (Annals of Statistics 1981): every sample keeps a positive
random weight, while drawing with replacement loses the only image of a rare class in a third of the
draws. Ratios of few samples (a rare class's IoU) lean low even so, hence draws are shifted to have
the value as their mean: an interval is about the value that test sets of this size would give.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from openeupe.evaluation.measure import REDUCTIONS, Array, Measure

ALPHA = 0.05
_LEVEL = 0.95
_RESAMPLES = 2000  # of the test set: the ends of a 95 % interval need no more
_SWAPS = 10_000  # a p-value has to survive Holm's correction over a suite's benchmarks
_CHUNK = 1 << 24  # weights held at once


@dataclass(frozen=True)
class Interval:
    """A value with its noise.

    low, high: 95 % percentile interval over reweighted test sets.
    error: standard error over the same. training: standard deviation over seeds (nan for one).
    """

    value: float
    low: float
    high: float
    error: float
    training: float


@dataclass(frozen=True)
class Difference:
    """First minus second, on the same samples.

    low, high: 95 % interval, of both sources of noise. p: two-sided permutation test of "they are
    equal", before any correction. one_seed: something was trained with one seed only, so that the
    noise of its training is not in the interval and not in p.
    """

    delta: float
    low: float
    high: float
    p: float
    one_seed: bool = False

    def turned(self) -> Difference:
        """Second minus first: a gain, where lower is better."""
        return replace(self, delta=-self.delta, low=-self.high, high=-self.low)


def interval(measure: Measure, seed: int = 0) -> Interval:
    """Bootstrap interval of a measure: its samples get other weights."""
    draws = _bootstrap([measure], seed)[0]
    low, high = _percentiles(draws)
    per_seed = measure.per_seed
    spread = float(per_seed.std(ddof=1)) if len(per_seed) > 1 else float("nan")
    return Interval(measure.value, low, high, float(np.nanstd(draws)), spread)


def difference(a: Measure, b: Measure, seed: int = 0, *, same_seeds: bool = False) -> Difference:
    """Paired comparison of two encoders on one benchmark.

    The interval: both are reweighted the same way. The test: if they were equal, each
    sample's two results could be swapped; p is the share of random swaps that give at least the
    difference seen. What the choice of training seeds adds to either is drawn from Student's t
    with the spread over its own seeds, whose numbers may differ (the setting of Welch's test, in
    Behrens and Fisher's form); with `same_seeds`, where seed i of both shares what it drew (the
    images of a training), with the spread of their differences.

    Raises:
        ValueError: if they are not the same metric on the same samples.
    """
    return mean_difference([(a, b)], seed, same_seeds=same_seeds)


def mean_difference(
    pairs: Sequence[tuple[Measure, Measure]], seed: int = 0, *, same_seeds: bool = False
) -> Difference:
    """`difference`, mean over pairs: what one change did wherever it was made.

    All are reweighted the same way, and a sample's results are swapped in all pairs at once. With
    `same_seeds`, seed i of all pairs shares what it drew, provided that all have as many.

    Raises:
        ValueError: if they are not the same metric on the same samples.
    """
    first = pairs[0][0]
    every = [measure for pair in pairs for measure in pair]
    if any(m.reduction != first.reduction or list(m.samples) != list(first.samples) for m in every):
        raise ValueError("the two were not measured on the same samples")
    delta = float(np.mean([a.value - b.value for a, b in pairs]))
    random = np.random.default_rng([seed, 1])
    if same_seeds and len({len(m.sums) for m in every}) == 1:
        noise = _training_noise(
            np.mean([a.per_seed - b.per_seed for a, b in pairs], axis=0), random
        )
    else:
        once = {id(m): m for m in every}  # one that several pairs share has one noise
        noises = {key: _training_noise(m.per_seed, random) for key, m in once.items()}
        noise = np.mean([noises[id(a)] - noises[id(b)] for a, b in pairs], axis=0)
    draws = _bootstrap(every, seed)
    low, high = _percentiles((draws[::2] - draws[1::2]).mean(axis=0) + noise[:_RESAMPLES])
    null = np.mean([np.concatenate(list(_swapped(a, b, seed))) for a, b in pairs], axis=0) + noise
    # Sums of many terms: what is equal but for rounding counts as equal.
    extreme = np.abs(null) >= abs(delta) - 1e-9 * max(abs(delta), 1e-9)
    p = (1 + int(np.count_nonzero(extreme | np.isnan(null)))) / (1 + _SWAPS)
    one_seed = any(m.trained and len(m.sums) == 1 for m in every)
    return Difference(delta, low, high, p, one_seed)


def verdict(gain: Difference, p: float) -> str:
    """The verdict at 5 %: "better", "worse", or why there is none."""
    if p >= ALPHA or gain.delta == 0:
        return "no difference shown"
    if gain.one_seed:
        return "one seed: no verdict"
    return "better" if gain.delta > 0 else "worse"


def corrected(gains: Sequence[Difference]) -> list[float]:
    """Holm's correction over comparisons.

    The p of one seed, too small by an unknown amount, must not ease the correction of the others:
    for them it counts as 1, and is itself multiplied by the number of comparisons.
    """
    adjusted = holm([1.0 if gain.one_seed else gain.p for gain in gains])
    return [
        min(gain.p * len(gains), 1.0) if gain.one_seed else p
        for gain, p in zip(gains, adjusted, strict=True)
    ]


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down correction: adjusted p-values, in the given order."""
    order = np.argsort(p, kind="stable")
    steps = np.asarray(p, dtype=float)[order] * np.arange(len(p), 0, -1)
    adjusted = np.minimum(np.maximum.accumulate(steps), 1.0)
    result = np.empty(len(p))
    result[order] = adjusted
    return [float(value) for value in result]


def _bootstrap(measures: Sequence[Measure], seed: int) -> Array:
    """Values `[measures, draws]` under the same random weights, each about its own value."""
    draws = np.concatenate(list(_reweighted(measures, seed)), axis=1)
    values = np.array([[m.value] for m in measures])
    shifted: Array = draws + (values - np.nanmean(draws, axis=1, keepdims=True))
    return shifted


def _reweighted(measures: Sequence[Measure], seed: int) -> Iterator[Array]:
    """Values `[measures, chunk]`, mean over training seeds."""
    random = np.random.default_rng([seed, 0])
    n = len(measures[0].samples)
    for size in _chunks(_RESAMPLES, n):
        weights = random.standard_exponential((size, n))  # Dirichlet's, once they sum to n
        weights *= n / weights.sum(axis=1, keepdims=True)
        yield np.stack([_values(m, weights @ m.sums) for m in measures])


def _swapped(a: Measure, b: Measure, seed: int) -> Iterator[Array]:
    """Differences `[chunk]` after each sample's two results were swapped or not, at random."""
    random = np.random.default_rng([seed, 2])
    # Seeds are matched in order, and repeated until both sides have as many: each weighs the same.
    count = np.arange(np.lcm(len(a.sums), len(b.sums)))
    matched = [
        (a.sums[i], b.sums[j])
        for i, j in zip(count % len(a.sums), count % len(b.sums), strict=True)
    ]
    for size in _chunks(_SWAPS, len(a.samples)):
        swap = random.integers(0, 2, size=(size, len(a.samples))).astype(np.float64)
        values = np.zeros(size)
        for first, second in matched:
            moved = swap @ (second - first)  # [chunk, M]
            values += _values(a, (first.sum(axis=0) + moved)[None])
            values -= _values(b, (second.sum(axis=0) - moved)[None])
        yield values / len(matched)


def _values(measure: Measure, totals: Array) -> Array:
    """Totals `[seeds, chunk, M]` -> values `[chunk]`."""
    values: Array = measure.scale * REDUCTIONS[measure.reduction](totals).mean(axis=0)
    return values


def _training_noise(per_seed: Array, random: np.random.Generator) -> Array:
    if len(per_seed) < 2:
        return np.zeros(_SWAPS)
    error = per_seed.std(ddof=1) / np.sqrt(len(per_seed))
    noise: Array = error * random.standard_t(len(per_seed) - 1, size=_SWAPS)
    return noise


def _percentiles(draws: Array) -> tuple[float, float]:
    tail = 100 * (1 - _LEVEL) / 2
    low, high = np.nanpercentile(draws, [tail, 100 - tail])
    return float(low), float(high)


def _chunks(total: int, n: int) -> Iterator[int]:
    size = max(_CHUNK // max(n, 1), 1)
    for start in range(0, total, size):
        yield min(size, total - start)
