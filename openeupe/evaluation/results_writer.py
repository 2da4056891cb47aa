"""Write results: each finished benchmark, then `results.json`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from openeupe.errors import InputError
from openeupe.evaluation.machine import machine
from openeupe.evaluation.measure import Outcome
from openeupe.evaluation.records import BenchmarkResult, EvaluationInfo
from openeupe.evaluation.results import BENCHMARKS, RESULTS, Results, read_benchmark, samples_file
from openeupe.files import durable, strict_json, write_atomically
from openeupe.identity import file_identity


def save_benchmark(folder: Path, result: BenchmarkResult, outcome: Outcome | None) -> None:
    """Write one finished benchmark to a folder of results.

    Args:
        result: of the outcome, without the digest of its samples.
        outcome: with the samples; None where the encoder cannot have the benchmark.
    """
    with _writing(folder):
        (folder / BENCHMARKS).mkdir(parents=True, exist_ok=True)
        whole = folder / BENCHMARKS / f"{result.name}.json"
        samples = samples_file(folder, result.name)
        answers = folder / f"samples_{result.name}.jsonl"
        with ExitStack() as placed:  # the last that is entered takes its place first
            partial = placed.enter_context(durable(whole))
            if outcome is not None:
                sums = placed.enter_context(durable(samples))
                arrays: dict[str, Any] = {}  # savez's own options are keywords, too
                for name, measure in outcome.measures.items():
                    arrays[f"{name}:sums"] = measure.sums
                    arrays[f"{name}:samples"] = np.asarray(measure.samples)
                with sums.open("wb") as stream:
                    np.savez_compressed(stream, **arrays)
                result = result.model_copy(update={"samples_digest": file_identity(sums)})
                if outcome.answers:
                    lines = placed.enter_context(durable(answers))
                    text = (json.dumps(one, ensure_ascii=False) + "\n" for one in outcome.answers)
                    lines.write_text("".join(text), encoding="utf-8")
            partial.write_text(strict_json(result.model_dump()), encoding="utf-8")
            # All is written: from here on a full disk loses nothing. A kill may lose what is
            # replaced, but never leaves new samples under old metrics.
            for old in (folder / RESULTS, whole, samples, answers):
                old.unlink(missing_ok=True)


def gather(folder: Path, names: Sequence[str], config: EvaluationInfo) -> Results:
    """Write `results.json` of these benchmarks and read it back."""
    results = Results(
        config=config,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        benchmarks={name: one for name in names if (one := read_benchmark(folder, name))},
        **machine().model_dump(),
    )
    with _writing(folder):
        write_atomically(folder / RESULTS, strict_json(results.to_json()))
    return Results.read(folder / RESULTS)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(
            f"results cannot be written to {folder} ({error.strerror}): free space, then "
            "give the same command again"
        ) from None
