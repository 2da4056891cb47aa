"""Typed records of an evaluation: metrics, and the result of one benchmark, as they are saved."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Literal, Self, get_args

from pydantic import ConfigDict, Field, model_validator

from openeupe.evaluation.measure import Measure, Outcome, Reduction
from openeupe.evaluation.statistics import interval
from openeupe.plain_json import Saved

FORMAT = 4  # of results; 1, 2 and 3 have other keys
Domain = Literal["image", "language", "text", "dense", "experts"]  # in the order of a table's rows
DOMAINS: tuple[Domain, ...] = get_args(Domain)
_Number = Annotated[float, Field(allow_inf_nan=False)]


class _Record(Saved):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Metric(_Record):
    """A score with its noise; None for values that are not finite.

    low, high: ends of the 95 % interval over the test samples. stderr: standard error over them.
    training_std: standard deviation over training seeds; None with one seed.
    samples: how many independent test samples there are.
    reduction, scale: how the value follows from the samples' sums; see `Measure`.
    unit: "%", "m" or "".
    """

    name: str
    value: _Number | None
    low: _Number | None
    high: _Number | None
    stderr: _Number | None
    training_std: _Number | None
    per_seed: Sequence[_Number | None]
    samples: int
    reduction: Reduction
    scale: _Number
    unit: str
    higher_is_better: bool

    @classmethod
    def of(cls, name: str, measure: Measure) -> Metric:
        """The metric that a measure's samples give, with its bootstrap interval."""
        noise = interval(measure)
        return cls(
            name=name,
            value=_finite(noise.value),
            low=_finite(noise.low),
            high=_finite(noise.high),
            stderr=_finite(noise.error),
            training_std=_finite(noise.training),
            per_seed=[_finite(value) for value in measure.per_seed.tolist()],
            samples=len(measure.samples),
            reduction=measure.reduction,
            scale=measure.scale,
            unit=measure.unit,
            higher_is_better=measure.higher_is_better,
        )

    @property
    def arrow(self) -> str:
        """Arrow for a metric that is better when lower, for tables."""
        return "" if self.higher_is_better else " ↓"

    def text(self, value: float | None) -> str:
        """Format a value of this metric for tables."""
        if value is None:
            return "n/a"
        return f"{value:.1f}" if self.unit == "%" or self.scale != 1 else f"{value:.3f}"


class EncoderIdentity(_Record):
    """Identity of an evaluated encoder.

    heads: by expert, the chain of heads to it.

    A result is of an encoder only if weights and heads are the same.
    """

    identity: str
    heads: Mapping[str, str]


class BenchmarkIdentity(_Record):
    """Identity of a benchmark of a suite, without its data.

    protocol_hash: of all settings but for where the data are.
    """

    name: str
    protocol: str
    protocol_hash: str
    domain: Domain
    settings: Mapping[str, object]


class Conditions(_Record):
    """Conditions of a result, without the contents of its data."""

    encoder: EncoderIdentity
    precision: str
    benchmark: BenchmarkIdentity


class BenchmarkResult(Conditions):
    """The result of one encoder on one benchmark.

    name: in tables and of its files: the benchmark's, with a suffix where it has several outcomes.
    data: identities of the contents of its data.
    outcomes: names of all results of the benchmark.
    missing: why the encoder does not support the benchmark; then there are no metrics.
    headline: which metric tables show.
    baselines: by name, scores without any ability on the headline metric.
    details: other values, such as per-class scores.
    samples_digest: of the file with the sums that the metrics were computed from.
    """

    format: int = FORMAT
    name: str
    data: Sequence[str]
    outcomes: Sequence[str]
    seconds: float
    missing: str | None = None
    headline: str | None = None
    metrics: Mapping[str, Metric] = Field({})
    baselines: Mapping[str, _Number | None] = Field({})
    details: Mapping[str, object] = Field({})
    samples_digest: str | None = None

    @model_validator(mode="after")
    def _metrics_or_reason(self) -> Self:
        if self.headline is not None and self.headline not in self.metrics:
            raise ValueError(f"headline {self.headline!r} is not among the metrics")
        if self.headline is None and self.missing is None:
            raise ValueError("there is neither a headline nor a reason why it is missing")
        return self

    @classmethod
    def of(
        cls,
        name: str,
        outcome: Outcome | str,
        conditions: Conditions,
        *,
        data: Sequence[str],
        outcomes: Sequence[str],
        seconds: float,
    ) -> BenchmarkResult:
        """The result of an outcome, or of the reason without one."""
        shared = {**dict(conditions), "data": data, "outcomes": outcomes, "seconds": seconds}
        if isinstance(outcome, str):
            return cls(name=name, missing=outcome, **shared)
        return cls(
            name=name,
            headline=outcome.headline,
            metrics={key: Metric.of(key, measure) for key, measure in outcome.measures.items()},
            baselines={key: _finite(value) for key, value in outcome.baselines.items()},
            details=outcome.details,
            **shared,
        )

    @property
    def score(self) -> Metric | None:
        """The headline metric; None if the encoder does not support the benchmark."""
        return None if self.headline is None else self.metrics[self.headline]

    @property
    def label(self) -> str:
        """Name and headline metric, as a table writes them."""
        score = self.score
        return self.name if score is None else f"{self.name} {score.name}{score.arrow}"

    @property
    def text(self) -> str:
        """The headline value. With a question mark where the probe did not resolve the ability."""
        if (score := self.score) is None:
            return "n/a"
        return score.text(score.value) + ("" if self.resolved else " ?")

    @property
    def resolved(self) -> bool:
        """Whether the best possible score is clearly above the baselines."""
        return self.details.get("resolved", True) is not False

    @property
    def best_baseline(self) -> tuple[str, float] | None:
        """Name and value of the best baseline, if there is one."""
        known = [(name, value) for name, value in self.baselines.items() if value is not None]
        if not known or (score := self.score) is None:
            return None
        return (max if score.higher_is_better else min)(known, key=lambda baseline: baseline[1])

    def fits(self, conditions: Conditions) -> bool:
        """Whether it belongs to this encoder, precision and benchmark."""
        return all(getattr(self, k) == getattr(conditions, k) for k in Conditions.model_fields)


class EvaluationInfo(_Record):
    """Encoder, suite and settings of an evaluation. model: the encoder's name."""

    model: str
    model_args: Mapping[str, object]
    parameters: int
    encoder: str
    precision: str
    device: str
    suite: str


class Machine(_Record):
    """Versions, commit and hardware."""

    git_hash: str | None
    packages: Mapping[str, str]
    hardware: str
    python: str


def by_domain(benchmarks: Iterable[BenchmarkResult]) -> list[BenchmarkResult]:
    """Benchmarks in the order of a table's rows."""
    return sorted(benchmarks, key=lambda one: DOMAINS.index(one.benchmark.domain))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
