"""Statistical power of a study's comparisons."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import stdtrit

from openeupe.evaluation.measure import Measure
from openeupe.evaluation.statistics import ALPHA, mean_difference

_POWER = 0.8
_TRIED = (*range(2, 31), 40, 60, 100, 200, 500, 1000)


@dataclass(frozen=True)
class Power:
    """The difference that one comparison can detect. Power 80 %, at 5 % after the strictest of
    Holm's steps.

    seed_std: standard deviation of the paired differences over seeds. item_error: standard error
    that the test set adds. resolvable: the smallest true difference that these seeds would have
    shown. seeds_needed: for a true difference of the observed size; None if no number of seeds
    is enough, because the test set is too small.
    """

    seed_std: float
    item_error: float
    resolvable: float
    seeds_needed: int | None


def power(pairs: Sequence[tuple[Measure, Measure]], tests: int) -> Power | None:
    """The power of a mean difference of pairs, one of `tests`. None without seeds in pairs."""
    seeds = len(pairs[0][0].sums)
    if seeds < 2 or any(len(m.sums) != seeds for pair in pairs for m in pair):
        return None
    per_seed = np.mean([a.per_seed - b.per_seed for a, b in pairs], axis=0)
    spread = float(per_seed.std(ddof=1))
    # Without seeds: the noise of the test set alone.
    without_seeds = mean_difference([(_pooled(a), _pooled(b)) for a, b in pairs])
    item_error = (without_seeds.high - without_seeds.low) / (2 * 1.96)

    def resolvable(n: int) -> float:
        reach = stdtrit(n - 1, 1 - ALPHA / tests / 2) + stdtrit(n - 1, _POWER)  # Student's t
        return float(reach) * math.sqrt(spread**2 / n + item_error**2)

    seen = abs(float(per_seed.mean()))
    needed = next((n for n in _TRIED if resolvable(n) <= seen), None)
    return Power(spread, item_error, resolvable(seeds), needed)


def _pooled(measure: Measure) -> Measure:
    """All seeds as one."""
    return replace(measure, sums=measure.sums.sum(axis=0, keepdims=True))
