"""Typed results of `openeupe evaluate`, from the files on disk to the cells of a table.

A folder holds `benchmarks/NAME.json` with `NAME.npz` (per-sample sums) and, for questions,
`samples_NAME.jsonl`; `results.json` merges them in lm-eval's format. This module alone
reads and validates them; `results_writer` writes them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, Self, get_args

import numpy as np
from pydantic import ConfigDict, Field, PrivateAttr, model_validator

from openeupe.errors import InputError
from openeupe.evaluation.measure import Measure, Outcome, Reduction
from openeupe.evaluation.statistics import interval
from openeupe.identity import file_identity
from openeupe.plain_json import Saved, read_arrays, read_model
from openeupe.table import Table

RESULTS = "results.json"
BENCHMARKS = "benchmarks"  # the folder of their files
FORMAT = 4  # of results; 1, 2 and 3 have other keys
AGAIN = "delete it and evaluate again"
Domain = Literal["image", "language", "text", "dense"]  # in the order of a table's rows
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
        """The result of an outcome, or of the reason why there is none."""
        told = {**dict(conditions), "data": data, "outcomes": outcomes, "seconds": seconds}
        if isinstance(outcome, str):
            return cls(name=name, missing=outcome, **told)
        return cls(
            name=name,
            headline=outcome.headline,
            metrics={key: Metric.of(key, measure) for key, measure in outcome.measures.items()},
            baselines={key: _finite(value) for key, value in outcome.baselines.items()},
            details=outcome.details,
            **told,
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
        """The headline value; with a question mark where the probe did not resolve the ability."""
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


class Results(Machine):
    """The results of one encoder on one suite.

    >>> results = Results.open(Path("evaluations/raw_pixels/mini"))  # doctest: +SKIP
    >>> print(results.table().markdown())  # doctest: +SKIP
    """

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)  # lm-eval's keys

    config: EvaluationInfo
    date: str
    benchmarks: Mapping[str, BenchmarkResult]
    _folder: Path = PrivateAttr(Path())

    @classmethod
    def open(cls, folder: Path) -> Results:
        """Read the results in a folder.

        Raises:
            InputError: if there are none, if a file is damaged (naming file and field), or if the
                files of the benchmarks are not those that `results.json` was made of.
        """
        if not cls.there(folder):
            raise InputError(
                f"{folder} holds no results of benchmarks: run openeupe evaluate first"
            )
        results = cls.read(folder / RESULTS)
        for name, shown in results.benchmarks.items():
            if read_benchmark(folder, name) != shown:
                raise InputError(
                    f"{folder / RESULTS} is not of the benchmarks next to it ({name} differs): "
                    "evaluate again"
                )
            check_samples(folder, shown)
        return results

    @classmethod
    def read(cls, file: Path) -> Results:
        """Read a `results.json` alone, whose other files may be elsewhere."""
        results = read_model(file, cls, AGAIN, FORMAT)
        results._folder = file.parent
        return results

    @staticmethod
    def there(folder: Path) -> bool:
        """Whether a folder contains results of `evaluate`."""
        folders = (BENCHMARKS, "columns")  # "columns": of format 1, refused when it is read
        return (folder / RESULTS).is_file() and any((folder / name).is_dir() for name in folders)

    @property
    def folder(self) -> Path:
        """The folder that they were read from."""
        return self._folder

    def is_of(self, encoder: EncoderIdentity) -> bool:
        """Whether all of them are of an encoder with these weights and heads."""
        return self.config.encoder == encoder.identity and all(
            one.encoder == encoder for one in self.benchmarks.values()
        )

    def measure(self, name: str) -> Measure:
        """The headline metric of a benchmark with its samples."""
        if name not in self.benchmarks:
            raise InputError(f"{self.folder}: benchmark {name} has no results")
        return read_measure(self.folder, self.benchmarks[name])

    def only(self, names: Sequence[str]) -> Results:
        """The same without the other benchmarks."""
        kept = {name: one for name, one in self.benchmarks.items() if name in names}
        return self.model_copy(update={"benchmarks": kept})

    def table(self) -> Table:
        """A row for each benchmark."""
        rows = []
        for one in by_domain(self.benchmarks.values()):
            if (score := one.score) is None:
                rows.append([one.label, one.text, "", "", "", ""])
                continue
            spread, baseline = score.training_std, one.best_baseline
            rows.append(
                [
                    one.label,
                    one.text,
                    f"{score.text(score.low)} to {score.text(score.high)}",
                    "" if spread is None else score.text(spread),
                    "" if baseline is None else f"{score.text(baseline[1])} {baseline[0]}",
                    f"{score.samples:,}",
                ]
            )
        header = ["benchmark", "score", "95 % interval", "± seeds", "baseline", "n"]
        return Table(header, rows, self.config.model, self.notes())

    def notes(self) -> list[str]:
        """Notes on missing benchmarks and question marks in a table."""
        lines = []
        for name, one in self.benchmarks.items():
            if one.missing is not None:
                lines.append(f"{name}: n/a, {one.missing}")
            elif not one.resolved:
                lines.append(
                    f"{name}: ? = not resolved by this probe, its best is too near its baselines"
                )
        return lines

    def to_json(self) -> dict[str, object]:
        """What `results.json` holds: lm-eval's keys, then `benchmarks` with everything."""
        scored = {k: (one, one.score) for k, one in self.benchmarks.items() if one.score}
        return {
            "format": FORMAT,
            "results": {name: _lm_eval(one) for name, (one, _) in scored.items()},
            "versions": {name: one.benchmark.protocol for name, one in self.benchmarks.items()},
            "configs": {name: one.benchmark.settings for name, one in self.benchmarks.items()},
            "n-samples": {
                name: {"original": score.samples, "effective": score.samples}
                for name, (_, score) in scored.items()
            },
            **self.model_dump(),
        }


def by_domain(benchmarks: Iterable[BenchmarkResult]) -> list[BenchmarkResult]:
    """Benchmarks in the order of a table's rows."""
    return sorted(benchmarks, key=lambda one: DOMAINS.index(one.benchmark.domain))


def benchmark_names(folder: Path) -> list[str]:
    """Names of the finished benchmarks in a folder of results."""
    return sorted(path.stem for path in (folder / BENCHMARKS).glob("*.json"))


def read_benchmark(folder: Path, name: str) -> BenchmarkResult | None:
    """The result of one benchmark in a folder of results; None if it was never finished."""
    file = folder / BENCHMARKS / f"{name}.json"
    if not file.is_file():
        return None
    result = read_model(file, BenchmarkResult, AGAIN, FORMAT)
    if result.name != name:
        raise InputError(f"{file} is damaged (name: {result.name!r}): {AGAIN}")
    return result


def read_measure(folder: Path, result: BenchmarkResult) -> Measure:
    """The headline metric of a benchmark with its samples.

    Raises:
        InputError: if it has none, or the samples are damaged or others.
    """
    if (score := result.score) is None:
        raise InputError(f"{folder}: benchmark {result.name} has no metrics")
    check_samples(folder, result)
    file = samples_file(folder, result.name)
    arrays = read_arrays(file, AGAIN)
    try:
        measure = Measure(
            score.reduction,
            [str(sample) for sample in arrays[f"{score.name}:samples"].tolist()],
            arrays[f"{score.name}:sums"].astype(np.float64, casting="safe"),
            score.scale,
            score.higher_is_better,
            score.unit,
            trained="seeds" in result.benchmark.settings,
        )
        if not (measure.sums.size and np.isfinite(measure.sums).all()):
            raise ValueError("sums are empty or no finite numbers")
        _ = measure.value
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise InputError(f"{file} is damaged ({error}): {AGAIN}") from None
    return measure


def samples_file(folder: Path, name: str) -> Path:
    """The file with the per-sample sums of a benchmark."""
    return folder / BENCHMARKS / f"{name}.npz"


def check_samples(folder: Path, result: BenchmarkResult) -> None:
    """Raise `InputError` if the samples are not those that the metrics were computed from."""
    file = samples_file(folder, result.name)
    digest = file_identity(file) if file.is_file() else "missing"
    if result.score is not None and digest != result.samples_digest:
        raise InputError(
            f"{file} is damaged or not what {result.name}.json was computed from: evaluate again"
        )


def _lm_eval(result: BenchmarkResult) -> dict[str, object]:
    found: dict[str, object] = {"alias": result.benchmark.protocol}
    for name, metric in result.metrics.items():
        found |= {f"{name},none": metric.value, f"{name}_stderr,none": metric.stderr}
    return found


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
