"""Suites: named benchmarks with every number of their protocols, and how one is carried out."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from openeupe.config import Config, Overrides, Written, load_settings
from openeupe.encoders import Encoder
from openeupe.errors import InputError
from openeupe.evaluation.benchmark import Benchmark, Chain, Judged, NotApplicable
from openeupe.evaluation.boundaries import Boundaries
from openeupe.evaluation.correspondence import Correspondence
from openeupe.evaluation.depth import Depth
from openeupe.evaluation.knn import Knn
from openeupe.evaluation.results import Results
from openeupe.evaluation.segmentation import Segmentation
from openeupe.evaluation.text_regions import TextRegions
from openeupe.evaluation.vlm.benchmarks import VlmBenchmarks
from openeupe.evaluation.vlm.mini import VlmMini
from openeupe.evaluation.zeroshot import ZeroShot, ZeroShotRidge
from openeupe.identity import encoder_identity
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
    | VlmBenchmarks,
    Field(discriminator="kind"),
]


class Suite(Config):
    """Benchmarks by name. note: what this suite is for, for whoever reads the file."""

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
    judged: Judged,
    folder: Path,
    *,
    root: Path,
    source: str,
    only: Sequence[str] | None = None,
    progress: Progress = LOGGED,
    opened: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Fill the benchmarks of a suite; what was filled before in `folder` is not done again.

    Args:
        root: where the suite's relative data paths start.
        source: what the user called the encoder.
        only: names of benchmarks; None: all.
        opened: data of benchmarks that the caller has opened before, by benchmark.

    Returns what `results.json` then holds.

    Raises:
        InputError: before any long work, if data are missing or do not fit.
    """
    chosen = _chosen(suite, only)
    ready = opened or {}
    data_of = {
        name: ready[name] if name in ready else _opened(name, suite.benchmarks[name], root)
        for name in chosen
    }
    with locked(folder, "the results folder"):
        Results(folder).remove_partials()
        return _fill(suite, judged, folder, data_of, root, source, progress)


def _fill(
    suite: Suite,
    judged: Judged,
    folder: Path,
    data_of: Mapping[str, Any],
    root: Path,
    source: str,
    progress: Progress,
) -> dict[str, Any]:
    """Carry out the benchmarks of `data_of`; others that fit this encoder and these data stay."""
    results = Results(folder)
    of = of_encoder(judged.encoder, judged.chains) | {"precision": judged.features.precision}
    names = []
    for name in data_of:
        benchmark, data = suite.benchmarks[name], data_of[name]
        what = {**of, **of_benchmark(name, benchmark), "data": benchmark.identities(data)}
        done = _finished(results, name, what)
        if done is None:
            started = time.perf_counter()
            outcomes: dict[str, Any] = {}
            try:
                outcomes = dict(benchmark.run(data, judged))
            except NotApplicable as reason:
                outcomes[""] = None
                what["missing"] = str(reason)
            what["seconds"] = round(time.perf_counter() - started, 2)
            what["outcomes"] = done = [f"{name}-{s}" if s else name for s in outcomes]
            for full, outcome in zip(done, outcomes.values(), strict=True):
                results.keep(full, outcome, what)
            progress.message(f"{name}: {_said(results, done)}, {what['seconds']:.0f} s")
        else:
            progress.message(f"{name}: {_said(results, done)}, kept")
        names += done
    others = {name: one for name, one in suite.benchmarks.items() if name not in data_of}
    before = _before(others, results, of, root, progress)
    encoder = judged.encoder
    config = {
        "model": source,
        "model_args": {"name": encoder.name, **encoder.args},
        "parameters": sum(p.numel() for p in encoder.parameters()),
        "encoder": of["encoder"],
        "precision": of["precision"],
        "device": str(judged.device),
        "suite": suite.name,
    }
    return results.gather([*before, *names], config)


def of_benchmark(name: str, benchmark: Benchmark) -> dict[str, Any]:
    """What a result keeps of its benchmark: name, protocol and all settings."""
    return {
        "benchmark": name,
        "protocol": benchmark.protocol,
        "protocol_hash": benchmark.protocol_identity(),
        "domain": benchmark.domain,
        "settings": benchmark.model_dump(mode="json"),
    }


def of_encoder(encoder: Encoder, chains: Mapping[str, Chain]) -> dict[str, Any]:
    """What a result keeps of its encoder, the heads that lead to experts included."""
    return {
        "encoder": encoder_identity(encoder),
        "heads": {expert: chain.identity for expert, chain in sorted(chains.items())},
    }


def _before(
    others: Mapping[str, Benchmark],
    results: Results,
    of: dict[str, Any],
    root: Path,
    progress: Progress,
) -> list[str]:
    """Outcomes of the other benchmarks that were finished before, for this encoder and data."""
    kept = []
    now: dict[str, list[str] | InputError] = {}  # what identifies the data of a benchmark
    for name in results.names():
        found = results.benchmark(name) or {}
        benchmark = str(found.get("benchmark"))
        if benchmark not in others:
            continue
        why = None
        if not fits(found, {**of, **of_benchmark(benchmark, others[benchmark])}):
            why = "evaluated with another encoder, precision or settings"
        elif not results.intact(name):
            why = "its samples are damaged"
        else:
            if benchmark not in now:
                now[benchmark] = _data_there(others[benchmark], root)
            data = now[benchmark]
            if isinstance(data, InputError):
                why = f"its data cannot be opened here ({data})"
            elif data != found["data"]:
                why = "evaluated with other data"
        if why is None:
            kept.append(name)
        else:
            progress.message(f"{name}: left out, {why}: evaluate it again")
    return kept


def _data_there(benchmark: Benchmark, root: Path) -> list[str] | InputError:
    """Identities of a benchmark's data; the error where they cannot be opened."""
    try:
        return benchmark.identities(benchmark.open(root))
    except InputError as error:
        return error


def fits(found: Mapping[str, Any], what: Mapping[str, Any]) -> bool:
    """Whether a saved result is of just this encoder, settings and the like."""
    return all(key in found and found[key] == value for key, value in what.items())


def _opened(name: str, benchmark: Benchmark, root: Path) -> Any:
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


def _finished(results: Results, name: str, what: dict[str, Any]) -> list[str] | None:
    """The outcomes of a benchmark that was finished before with just these settings and data."""

    for found in results.names():
        benchmark = results.benchmark(found) or {}
        if not fits(benchmark, what):
            continue
        outcomes: list[str] = benchmark["outcomes"]
        whole = all(fits(results.benchmark(o) or {}, what) and results.intact(o) for o in outcomes)
        if found in outcomes and whole:
            return outcomes
    return None


def _said(results: Results, names: Sequence[str]) -> str:
    parts = []
    for name in names:
        benchmark = results.benchmark(name) or {}
        if "headline" not in benchmark:
            parts.append(f"n/a ({benchmark['missing']})")
            continue
        figure = benchmark["figures"][benchmark["headline"]]
        label = f"{name} " if len(names) > 1 else ""
        digits = 1 if figure["scale"] != 1 else 3
        parts.append(f"{label}{figure['value']:.{digits}f} {figure['unit']}".strip())
    return ", ".join(parts)
