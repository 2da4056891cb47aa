"""Typed results of `openeupe evaluate`, read from files and shown as tables.

A folder holds `benchmarks/NAME.json` with `NAME.npz` (per-sample sums) and, for questions,
`samples_NAME.jsonl`; `results.json` merges them in lm-eval's format. This module alone
reads and validates them; `results_writer` writes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from pydantic import ConfigDict, PrivateAttr

from openeupe.errors import InputError
from openeupe.evaluation.measure import Measure
from openeupe.evaluation.records import (
    FORMAT,
    BenchmarkResult,
    EncoderIdentity,
    EvaluationInfo,
    Machine,
    by_domain,
)
from openeupe.identity import file_identity
from openeupe.plain_json import read_arrays, read_model
from openeupe.table import Table

RESULTS = "results.json"
BENCHMARKS = "benchmarks"  # the folder of their files
AGAIN = "delete it and evaluate again"


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
        """Whether all results are of an encoder with these weights and heads."""
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


def benchmark_names(folder: Path) -> list[str]:
    """Names of the finished benchmarks in a folder of results."""
    return sorted(path.stem for path in (folder / BENCHMARKS).glob("*.json"))


def read_benchmark(folder: Path, name: str) -> BenchmarkResult | None:
    """The result of one benchmark in a folder of results. None if it was never finished."""
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
    """Raise `InputError` if samples and metrics do not belong together."""
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
