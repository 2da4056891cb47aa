"""Suites: named benchmarks, and evaluating an encoder on them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from openeupe.config import Config, Overrides, Written, load_settings
from openeupe.errors import InputError
from openeupe.evaluation.benchmark import Benchmark, BenchmarkData, EvaluatedEncoder, NotApplicable
from openeupe.evaluation.boundaries import Boundaries
from openeupe.evaluation.correspondence import Correspondence
from openeupe.evaluation.depth import Depth
from openeupe.evaluation.fidelity import Fidelity
from openeupe.evaluation.knn import Knn
from openeupe.evaluation.measure import Outcome
from openeupe.evaluation.records import BenchmarkResult, Conditions, EvaluationInfo
from openeupe.evaluation.results import (
    BENCHMARKS,
    Results,
    benchmark_names,
    check_samples,
    read_benchmark,
)
from openeupe.evaluation.results_writer import gather, save_benchmark
from openeupe.evaluation.segmentation import Segmentation
from openeupe.evaluation.text_regions import TextRegions
from openeupe.evaluation.vlm.benchmarks import VlmBenchmarks
from openeupe.evaluation.vlm.mini import VlmMini
from openeupe.evaluation.zeroshot import ZeroShot, ZeroShotRidge
from openeupe.files import remove_partials
from openeupe.known_warnings import known_warnings_ignored
from openeupe.locks import locked
from openeupe.names import Name
from openeupe.progress import LOGGED, Progress

AnyBenchmark = Annotated[
    Knn
    | ZeroShot
    | ZeroShotRidge
    | Segmentation
    | Depth
    | Correspondence
    | TextRegions
    | Boundaries
    | VlmMini
    | VlmBenchmarks
    | Fidelity,
    Field(discriminator="kind"),
]


class Suite(Config):
    """Benchmarks by name. note: purpose of the suite."""

    name: Name
    note: str = ""
    benchmarks: dict[Name, AnyBenchmark] = Field(min_length=1)

    @model_validator(mode="after")
    def _outcomes_apart(self) -> Suite:
        for name, benchmark in self.benchmarks.items():
            clash = [other for other in self.benchmarks if other.startswith(f"{name}-")]
            if clash and benchmark.fills_several:
                raise ValueError(
                    f"benchmark {clash[0]} is named like an outcome of {name}, whose file it would "
                    "overwrite: rename it"
                )
        return self


def load_suite(source: Written, overrides: Overrides | None = None) -> Suite:
    """Read a suite: a YAML file, the name of a packaged one, or a mapping; see `load_settings`."""
    return load_settings(Suite, "suite", source, overrides)


@known_warnings_ignored()
def evaluate(
    suite: Suite,
    evaluated: EvaluatedEncoder,
    folder: Path,
    *,
    root: Path,
    source: str,
    only: Sequence[str] | None = None,
    progress: Progress = LOGGED,
    opened: Mapping[str, BenchmarkData] | None = None,
) -> Results:
    """Evaluate an encoder on a suite. Finished benchmarks in `folder` are not evaluated again.

    Args:
        folder: of the results.
        root: where the suite's relative data paths start.
        source: name of the encoder.
        only: names of benchmarks; None: all.
        opened: data of benchmarks that the caller has opened before, by benchmark.

    Raises:
        InputError: before any long work, if data are missing or do not fit.
    """
    ready = opened or {}
    data_of = {
        name: ready[name] if name in ready else _opened(name, suite.benchmarks[name], root)
        for name in _chosen(suite, only)
    }
    with locked(folder, "the results folder"):
        remove_partials(folder)
        remove_partials(folder / BENCHMARKS)
        names: list[str] = []
        for name, data in data_of.items():
            names += _fill(name, suite.benchmarks[name], data, evaluated, folder, progress)
        others = {name: one for name, one in suite.benchmarks.items() if name not in data_of}
        before = _before(others, evaluated, folder, root, progress)
        encoder = evaluated.encoder
        info = EvaluationInfo(
            model=source,
            model_args={"name": encoder.name, **encoder.args},
            parameters=sum(parameter.numel() for parameter in encoder.parameters()),
            encoder=evaluated.identity.identity,
            precision=evaluated.features.precision,
            device=str(evaluated.device),
            suite=suite.name,
        )
        return gather(folder, [*before, *names], info)


def _fill(
    name: str,
    benchmark: Benchmark,
    data: BenchmarkData,
    evaluated: EvaluatedEncoder,
    folder: Path,
    progress: Progress,
) -> Sequence[str]:
    """Evaluate one benchmark unless it was finished before. Returns the names of its outcomes."""
    conditions, identities = evaluated.conditions(name, benchmark), benchmark.identities(data)
    if done := _finished(folder, conditions, identities):
        progress.message(f"{name}: {_scores(folder, done)}, already evaluated")
        return done
    started = time.perf_counter()
    outcomes: Mapping[str, Outcome | str]
    try:
        outcomes = benchmark.run(data, evaluated)
    except NotApplicable as reason:
        outcomes = {"": str(reason)}
    seconds = round(time.perf_counter() - started, 2)
    names = [f"{name}-{suffix}" if suffix else name for suffix in outcomes]
    for full, outcome in zip(names, outcomes.values(), strict=True):
        result = BenchmarkResult.of(
            full, outcome, conditions, data=identities, outcomes=names, seconds=seconds
        )
        save_benchmark(folder, result, None if isinstance(outcome, str) else outcome)
    progress.message(f"{name}: {_scores(folder, names)}, {seconds:.0f} s")
    return names


def _before(
    others: Mapping[str, Benchmark],
    evaluated: EvaluatedEncoder,
    folder: Path,
    root: Path,
    progress: Progress,
) -> list[str]:
    """Finished outcomes of other benchmarks, for this encoder and data."""
    found = []
    now: dict[str, list[str] | InputError] = {}  # what identifies the data of a benchmark
    for name in benchmark_names(folder):
        result = read_benchmark(folder, name)
        if result is None or (benchmark := result.benchmark.name) not in others:
            continue
        why = None
        if not result.fits(evaluated.conditions(benchmark, others[benchmark])):
            why = "evaluated with another encoder, precision or settings"
        elif not _intact(folder, result):
            why = "its samples are damaged"
        else:
            if benchmark not in now:
                now[benchmark] = _data_there(others[benchmark], root)
            data = now[benchmark]
            if isinstance(data, InputError):
                why = f"its data cannot be opened here ({data})"
            elif data != result.data:
                why = "evaluated with other data"
        if why is None:
            found.append(name)
        else:
            progress.message(f"{name}: left out, {why}: evaluate it again")
    return found


def _data_there(benchmark: Benchmark, root: Path) -> list[str] | InputError:
    """Identities of a benchmark's data; the error where they cannot be opened."""
    try:
        return benchmark.identities(benchmark.open(root))
    except InputError as error:
        return error


def _opened(name: str, benchmark: Benchmark, root: Path) -> BenchmarkData:
    try:
        return benchmark.open(root)
    except InputError as error:
        raise InputError(
            f"benchmark {name}: {error} (or leave the benchmark out: benchmarks.{name}=null)"
        ) from None


def _chosen(suite: Suite, only: Sequence[str] | None) -> list[str]:
    unknown = [name for name in only or [] if name not in suite.benchmarks]
    if unknown:
        raise InputError(
            f"suite {suite.name} has no benchmark {unknown[0]}: it has "
            + ", ".join(suite.benchmarks)
        )
    return [name for name in suite.benchmarks if not only or name in only]


def _finished(folder: Path, conditions: Conditions, data: Sequence[str]) -> Sequence[str] | None:
    """The outcomes of a benchmark, if finished with these conditions and data."""

    def whole(result: BenchmarkResult | None) -> bool:
        return (
            result is not None
            and result.fits(conditions)
            and result.data == data
            and _intact(folder, result)
        )

    for name in benchmark_names(folder):
        result = read_benchmark(folder, name)
        outcomes = result.outcomes if result is not None and whole(result) else ()
        if name in outcomes and all(whole(read_benchmark(folder, one)) for one in outcomes):
            return outcomes
    return None


def _intact(folder: Path, result: BenchmarkResult) -> bool:
    """Whether a benchmark's samples are those that its metrics were computed from."""
    try:
        check_samples(folder, result)
    except InputError:
        return False
    return True


def _scores(folder: Path, names: Sequence[str]) -> str:
    parts = []
    for name in names:
        result = read_benchmark(folder, name)
        assert result is not None  # it was written, or checked, just before
        if (score := result.score) is None:
            parts.append(f"n/a ({result.missing})")
            continue
        label = name.removeprefix(f"{result.benchmark.name}-") + " " if len(names) > 1 else ""
        parts.append(f"{label}{score.text(score.value)} {score.unit}".strip())
    return ", ".join(parts)
