"""Results on disk: figures, the samples they rest on, and everything needed to repeat them.

A folder holds `columns/NAME.json` with `NAME.npz` (per-sample sums) and, for questions,
`samples_NAME.jsonl`; written as each column ends, so that nothing is lost. `results.json` puts
them together in the shape of lm-eval; every table is drawn from it.
"""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from openeupe.errors import InputError
from openeupe.evaluate.measure import Measure, Outcome
from openeupe.evaluate.saved import AGAIN, read_column, read_results
from openeupe.evaluate.statistics import interval
from openeupe.files import durable, remove_partials, strict_json, write_atomically
from openeupe.plain_json import read_arrays

RESULTS = "results.json"
_COLUMNS = "columns"


class Results:
    """The results of one encoder on one suite."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def open(cls, folder: Path) -> Results:
        """Results that were finished or begun before."""
        if not cls.there(folder):
            raise InputError(f"{folder} holds no results of columns: run openeupe evaluate first")
        return cls(folder)

    @staticmethod
    def there(folder: Path) -> bool:
        """Whether a folder holds results (a run's own `results.json` is another thing)."""
        return (folder / RESULTS).is_file() and (folder / _COLUMNS).is_dir()

    def remove_partials(self) -> None:
        """Remove what a killed process left half written."""
        remove_partials(self.folder)
        remove_partials(self.folder / _COLUMNS)

    def read(self) -> dict[str, Any]:
        """What `results.json` holds."""
        return read_results(self.folder / RESULTS)

    def column(self, name: str) -> dict[str, Any] | None:
        """What is kept of a column besides its samples; None if it was never finished."""
        path = self.folder / _COLUMNS / f"{name}.json"
        return read_column(path) if path.is_file() else None

    def names(self) -> list[str]:
        """Names of the finished columns."""
        return sorted(path.stem for path in (self.folder / _COLUMNS).glob("*.json"))

    def measure(self, name: str) -> Measure:
        """The headline measure of a column, with its samples."""
        column = self.column(name)
        if column is None or "headline" not in column:
            raise InputError(f"{self.folder}: column {name} has no figures")
        headline = column["headline"]
        figure = column["figures"][headline]
        path = self.folder / _COLUMNS / f"{name}.npz"
        arrays = read_arrays(path, AGAIN)
        try:
            measure = Measure(
                figure["metric"],
                [str(sample) for sample in arrays[f"{headline}:samples"].tolist()],
                arrays[f"{headline}:sums"].astype(np.float64, casting="safe"),
                figure["scale"],
                figure["higher_is_better"],
                figure["unit"],
                trained="seeds" in column["settings"],
            )
            if not (measure.sums.size and np.isfinite(measure.sums).all()):
                raise ValueError("sums are empty or no finite numbers")
            _ = measure.value
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise InputError(f"{path} is damaged ({error}): {AGAIN}") from None
        return measure

    def keep(self, name: str, outcome: Outcome | None, about: dict[str, Any]) -> None:
        """Write one finished column.

        Args:
            outcome: None where the encoder cannot have the column; `about["missing"]` says why.
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
        folder = self.folder / _COLUMNS
        folder.mkdir(parents=True, exist_ok=True)
        content = dict(about)
        whole = folder / f"{name}.json"
        samples = self.folder / f"samples_{name}.jsonl"
        if whole.is_file():  # until the new one is whole, neither it nor what was gathered holds
            for old in (self.folder / RESULTS, whole, folder / f"{name}.npz", samples):
                old.unlink(missing_ok=True)
        if outcome is not None:
            content |= {
                "headline": outcome.headline,
                "figures": {k: _figure(m) for k, m in outcome.measures.items()},
                "floors": outcome.floors,
                "details": outcome.details,
            }
            arrays: dict[str, Any] = {}
            for key, measure in outcome.measures.items():
                arrays |= {
                    f"{key}:sums": measure.sums,
                    f"{key}:samples": np.asarray(measure.samples),
                }
            with durable(folder / f"{name}.npz") as partial, partial.open("wb") as stream:
                np.savez_compressed(stream, **arrays)
            if outcome.answers:
                lines = "".join(json.dumps(a, ensure_ascii=False) + "\n" for a in outcome.answers)
                write_atomically(samples, lines)
        # Last: a column with this file is whole.
        write_atomically(whole, strict_json(content))

    def gather(self, names: list[str], config: dict[str, Any]) -> dict[str, Any]:
        """Write and return `results.json` of these columns."""
        columns = {name: column for name in names if (column := self.column(name))}
        there = {name: c for name, c in columns.items() if "headline" in c}
        content = {
            "results": {name: _lm_eval(c) for name, c in there.items()},
            "versions": {name: c["protocol"] for name, c in columns.items()},
            "configs": {name: c["settings"] for name, c in columns.items()},
            "n-samples": {
                name: {"original": _count(c), "effective": _count(c)} for name, c in there.items()
            },
            "config": config,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "columns": columns,
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
    try:
        here = Path(__file__).parent
        command = ["git", "-C", str(here), "rev-parse", "HEAD"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        commit = done.stdout.strip() if done.returncode == 0 else None
    except OSError:
        commit = None
    accelerator = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "git_hash": commit,
        "packages": packages,
        "hardware": accelerator or f"{platform.machine()}, {torch.get_num_threads()} threads",
        "python": platform.python_version(),
    }


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


def _lm_eval(column: dict[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = {"alias": column["protocol"]}
    for key, figure in column["figures"].items():
        result |= {f"{key},none": figure["value"], f"{key}_stderr,none": figure["stderr"]}
    return result


def _count(column: dict[str, Any]) -> int:
    return int(column["figures"][column["headline"]]["samples"])
