"""Results on disk: figures, the samples they rest on, and everything needed to repeat them.

A folder holds `benchmarks/NAME.json` with `NAME.npz` (per-sample sums) and, for questions,
`samples_NAME.jsonl`; written as each benchmark ends, so that nothing is lost. `results.json` puts
them together in the shape of lm-eval; every table is drawn from it.
"""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from openeupe.errors import InputError
from openeupe.evaluation.measure import Measure, Outcome
from openeupe.evaluation.saved import AGAIN, FORMAT, read_benchmark, read_results
from openeupe.evaluation.statistics import interval
from openeupe.files import durable, remove_partials, strict_json, write_atomically
from openeupe.identity import file_identity
from openeupe.plain_json import read_arrays

RESULTS = "results.json"
_BENCHMARKS = "benchmarks"


class Results:
    """The results of one encoder on one suite."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def open(cls, folder: Path) -> Results:
        """Results that were finished or begun before."""
        if not cls.there(folder):
            raise InputError(
                f"{folder} holds no results of benchmarks: run openeupe evaluate first"
            )
        return cls(folder)

    @staticmethod
    def there(folder: Path) -> bool:
        """Whether a folder holds results (a run's own `results.json` is another thing)."""
        folders = (_BENCHMARKS, "columns")  # "columns": of format 1, refused when it is read
        return (folder / RESULTS).is_file() and any((folder / name).is_dir() for name in folders)

    def remove_partials(self) -> None:
        """Remove what a killed process left half written."""
        remove_partials(self.folder)
        remove_partials(self.folder / _BENCHMARKS)

    def read(self) -> dict[str, Any]:
        """What `results.json` holds.

        Raises:
            InputError: if the files of its benchmarks are not those that it was made of.
        """
        content = read_results(self.folder / RESULTS)
        for name, shown in content["benchmarks"].items():
            if self.benchmark(name) != shown:
                raise InputError(
                    f"{self.folder / RESULTS} is not of the benchmarks beside it ({name} differs): "
                    "evaluate again"
                )
            self._check_samples(name, shown)
        return content

    def benchmark(self, name: str) -> dict[str, Any] | None:
        """What is kept of a benchmark besides its samples; None if it was never finished."""
        path = self.folder / _BENCHMARKS / f"{name}.json"
        return read_benchmark(path) if path.is_file() else None

    def names(self) -> list[str]:
        """Names of the finished benchmarks."""
        return sorted(path.stem for path in (self.folder / _BENCHMARKS).glob("*.json"))

    def measure(self, name: str) -> Measure:
        """The headline measure of a benchmark, with its samples."""
        benchmark = self.benchmark(name)
        if benchmark is None or "headline" not in benchmark:
            raise InputError(f"{self.folder}: benchmark {name} has no figures")
        headline = benchmark["headline"]
        figure = benchmark["figures"][headline]
        self._check_samples(name, benchmark)
        path = self._samples(name)
        arrays = read_arrays(path, AGAIN)
        try:
            measure = Measure(
                figure["metric"],
                [str(sample) for sample in arrays[f"{headline}:samples"].tolist()],
                arrays[f"{headline}:sums"].astype(np.float64, casting="safe"),
                figure["scale"],
                figure["higher_is_better"],
                figure["unit"],
                trained="seeds" in benchmark["settings"],
            )
            if not (measure.sums.size and np.isfinite(measure.sums).all()):
                raise ValueError("sums are empty or no finite numbers")
            _ = measure.value
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise InputError(f"{path} is damaged ({error}): {AGAIN}") from None
        return measure

    def intact(self, name: str) -> bool:
        """Whether a finished benchmark's samples are those that its figures were computed from."""
        try:
            self._check_samples(name, self.benchmark(name) or {})
        except InputError:
            return False
        return True

    def _samples(self, name: str) -> Path:
        return self.folder / _BENCHMARKS / f"{name}.npz"

    def _check_samples(self, name: str, benchmark: dict[str, Any]) -> None:
        """Raise `InputError` if the samples are not those that the benchmark was written with."""
        path = self._samples(name)
        digest = file_identity(path) if path.is_file() else "missing"
        if "headline" in benchmark and digest != benchmark.get("samples_digest"):
            raise InputError(
                f"{path} is damaged or not what {name}.json was computed from: evaluate again"
            )

    def keep(self, name: str, outcome: Outcome | None, about: dict[str, Any]) -> None:
        """Write one finished benchmark.

        Args:
            outcome: None where the encoder cannot have the benchmark; `about["missing"]` says why.
            about: protocol, data, encoder, precision, seconds and the like.
        """
        with self._writing():
            self._keep(name, outcome, about)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InputError(
                f"results cannot be written to {self.folder} ({error.strerror}): free space, then "
                "give the same command again"
            ) from None

    def _keep(self, name: str, outcome: Outcome | None, about: dict[str, Any]) -> None:
        folder = self.folder / _BENCHMARKS
        folder.mkdir(parents=True, exist_ok=True)
        whole, arrays = folder / f"{name}.json", self._samples(name)
        answers = self.folder / f"samples_{name}.jsonl"
        content = {"format": FORMAT, **about}
        with ExitStack() as placed:  # the last that is entered takes its place first
            partial = placed.enter_context(durable(whole))
            if outcome is not None:
                content |= _content(outcome)
                sums = placed.enter_context(durable(arrays))
                with sums.open("wb") as stream:
                    np.savez_compressed(stream, **_arrays(outcome))
                content["samples_digest"] = file_identity(sums)
                if outcome.answers:
                    lines = placed.enter_context(durable(answers))
                    lines.write_text(_json_lines(outcome.answers), encoding="utf-8")
            partial.write_text(strict_json(content), encoding="utf-8")
            # All is written: from here on a full disk loses nothing. A kill may lose what is
            # replaced, but never leaves new samples under old figures.
            for old in (self.folder / RESULTS, whole, arrays, answers):
                old.unlink(missing_ok=True)

    def gather(self, names: list[str], config: dict[str, Any]) -> dict[str, Any]:
        """Write and return `results.json` of these benchmarks."""
        benchmarks = {name: benchmark for name in names if (benchmark := self.benchmark(name))}
        there = {name: c for name, c in benchmarks.items() if "headline" in c}
        content = {
            "format": FORMAT,
            "results": {name: _lm_eval(c) for name, c in there.items()},
            "versions": {name: c["protocol"] for name, c in benchmarks.items()},
            "configs": {name: c["settings"] for name, c in benchmarks.items()},
            "n-samples": {
                name: {"original": _count(c), "effective": _count(c)} for name, c in there.items()
            },
            "config": config,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "benchmarks": benchmarks,
            **machine(),
        }
        with self._writing():
            write_atomically(self.folder / RESULTS, strict_json(content))
        return content


def machine() -> dict[str, Any]:
    """Versions, commit and hardware, for every table's small print."""
    packages = {}
    for package in ("openeupe", "torch", "torchvision", "timm", "numpy", "transformers"):
        try:
            packages[package] = version(package)
        except PackageNotFoundError:
            continue
    accelerator = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "git_hash": commit(Path(__file__)),
        "packages": packages,
        "hardware": accelerator or f"{platform.machine()}, {torch.get_num_threads()} threads",
        "python": platform.python_version(),
    }


def commit(file: Path) -> str | None:
    """The commit that a source file is of, with "-dirty" where tracked files differ from it.

    None for a file that git does not track: an installed package may lie in another repository.
    """

    def git(*words: str) -> str | None:
        command = ["git", "-C", str(file.parent), *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else None

    try:
        found = git("rev-parse", "HEAD") if git("ls-files", "--error-unmatch", file.name) else None
        dirty = found and git("status", "--porcelain", "--untracked-files=no")
    except OSError:
        return None
    return f"{found}-dirty" if dirty else found


def _content(outcome: Outcome) -> dict[str, Any]:
    return {
        "headline": outcome.headline,
        "figures": {k: _figure(m) for k, m in outcome.measures.items()},
        "floors": outcome.floors,
        "details": outcome.details,
    }


def _arrays(outcome: Outcome) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, measure in outcome.measures.items():
        found |= {f"{key}:sums": measure.sums, f"{key}:samples": np.asarray(measure.samples)}
    return found


def _json_lines(answers: Iterable[Any]) -> str:
    return "".join(json.dumps(answer, ensure_ascii=False) + "\n" for answer in answers)


def _figure(measure: Measure) -> dict[str, Any]:
    noise = interval(measure)
    return {
        "value": noise.value,
        "low": noise.low,
        "high": noise.high,
        "stderr": noise.error,
        "training_std": noise.training,
        "per_seed": measure.per_seed.tolist(),
        "samples": len(measure.samples),
        "metric": measure.metric,
        "scale": measure.scale,
        "unit": measure.unit,
        "higher_is_better": measure.higher_is_better,
    }


def _lm_eval(benchmark: dict[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = {"alias": benchmark["protocol"]}
    for key, figure in benchmark["figures"].items():
        result |= {f"{key},none": figure["value"], f"{key}_stderr,none": figure["stderr"]}
    return result


def _count(benchmark: dict[str, Any]) -> int:
    return int(benchmark["figures"][benchmark["headline"]]["samples"])
