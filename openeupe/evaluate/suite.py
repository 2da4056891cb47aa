"""Suites: named columns with every number of their protocols, and how one is carried out."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from rich.console import Console

from openeupe.config import Config, load_settings
from openeupe.errors import InputError
from openeupe.evaluate.boundaries import Boundaries
from openeupe.evaluate.column import Column, Judged, NotApplicable
from openeupe.evaluate.correspondence import Correspondence
from openeupe.evaluate.depth import Depth
from openeupe.evaluate.knn import Knn
from openeupe.evaluate.results import Results
from openeupe.evaluate.segmentation import Segmentation
from openeupe.evaluate.text_regions import TextRegions
from openeupe.evaluate.vlm.benchmarks import VlmBenchmarks
from openeupe.evaluate.vlm.mini import VlmMini
from openeupe.evaluate.zeroshot import ZeroShot, ZeroShotRidge
from openeupe.identity import encoder_identity, settings_identity
from openeupe.locks import locked

AnyColumn = Annotated[
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
    """Columns by name. note: what this suite is for, for whoever reads the file."""

    name: str
    note: str = ""
    columns: dict[str, AnyColumn] = Field(min_length=1)


def load_suite(source: str | Path, overrides: list[str] | None = None) -> Suite:
    """Read a suite: a YAML file, or the name of a packaged one; see `load_settings`."""
    return load_settings(Suite, "suite", source, overrides)


def evaluate(
    suite: Suite,
    judged: Judged,
    folder: Path,
    *,
    root: Path,
    source: str,
    only: Sequence[str] | None = None,
    console: Console | None = None,
    opened: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Fill the columns of a suite; what was filled before in `folder` is not done again.

    Args:
        root: where the suite's relative data paths start.
        source: what the user called the encoder.
        only: names of columns; None: all.
        opened: data of columns that the caller has opened before, by column.

    Returns what `results.json` then holds.

    Raises:
        InputError: before any long work, if data are missing or do not fit.
    """
    console = console or Console()
    chosen = _chosen(suite, only)
    ready = opened or {}
    data_of = {
        name: ready[name] if name in ready else _opened(name, suite.columns[name], root)
        for name in chosen
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"results cannot be written to {folder} ({error.strerror}): choose another --out"
        ) from None
    with locked(folder, "the results folder"):
        Results(folder).remove_partials()
        return _fill(suite, judged, folder, data_of, source, bool(only), console)


def _fill(
    suite: Suite,
    judged: Judged,
    folder: Path,
    data_of: Mapping[str, Any],
    source: str,
    some: bool,
    console: Console,
) -> dict[str, Any]:
    """Carry out the columns of `data_of`; with `some`, the others that are there stay."""
    results = Results(folder)
    about = {"encoder": encoder_identity(judged.encoder), "precision": judged.features.precision}
    names = []
    for name in data_of:
        column, data = suite.columns[name], data_of[name]
        settings = column.model_dump(mode="json")
        what: dict[str, Any] = {
            **about,
            "protocol": column.protocol,
            "protocol_hash": settings_identity(settings),
            "domain": column.domain,
            "data": _fingerprints(data),
            "settings": settings,
        }
        done = _finished(results, name, what)
        if done is None:
            started = time.perf_counter()
            outcomes: dict[str, Any] = {}
            try:
                outcomes = dict(column.run(data, judged))
            except NotApplicable as reason:
                outcomes[""] = None
                what["missing"] = str(reason)
            what["seconds"] = round(time.perf_counter() - started, 2)
            what["outcomes"] = done = [f"{name}-{s}" if s else name for s in outcomes]
            for full, outcome in zip(done, outcomes.values(), strict=True):
                results.keep(full, outcome, what)
            console.print(
                f"{name}: {_said(results, done)}, {what['seconds']:.0f} s", soft_wrap=True
            )
        else:
            console.print(f"{name}: {_said(results, done)}, kept", soft_wrap=True)
        names += done
    before = [n for n in results.names() if n not in names] if some else []
    encoder = judged.encoder
    config = {
        "model": source,
        "model_args": {"name": encoder.name, **encoder.args},
        "parameters": sum(p.numel() for p in encoder.parameters()),
        "encoder": about["encoder"],
        "precision": judged.features.precision,
        "device": str(judged.device),
        "suite": suite.name,
    }
    return results.gather([*before, *names], config)


def _opened(name: str, column: Column, root: Path) -> Any:
    try:
        return column.open(root)
    except InputError as error:
        raise InputError(
            f"column {name}: {error} (or leave the column out: columns.{name}=null)"
        ) from None


def _chosen(suite: Suite, only: Sequence[str] | None) -> list[str]:
    unknown = [name for name in only or [] if name not in suite.columns]
    if unknown:
        raise InputError(
            f"suite {suite.name} has no column {unknown[0]}: it has {', '.join(suite.columns)}"
        )
    return [name for name in suite.columns if not only or name in only]


def _finished(results: Results, name: str, what: dict[str, Any]) -> list[str] | None:
    """The outcomes of a column that was finished before with just these settings and data."""

    def fits(outcome: str) -> bool:
        column = results.column(outcome)
        return column is not None and all(column.get(key) == what[key] for key in what)

    for found in results.names():
        if (found == name or found.startswith(f"{name}-")) and fits(found):
            outcomes: list[str] = (results.column(found) or {})["outcomes"]
            if found in outcomes and all(fits(other) for other in outcomes):
                return outcomes
    return None


def _said(results: Results, names: Sequence[str]) -> str:
    parts = []
    for name in names:
        column = results.column(name) or {}
        if "headline" not in column:
            parts.append(f"n/a ({column['missing']})")
            continue
        figure = column["figures"][column["headline"]]
        label = f"{name} " if len(names) > 1 else ""
        digits = 1 if figure["scale"] != 1 else 3
        parts.append(f"{label}{figure['value']:.{digits}f} {figure['unit']}".strip())
    return ", ".join(parts)


def _fingerprints(data: Any) -> list[str]:
    """Fingerprints of every set of images in what a column opened."""
    if hasattr(data, "fingerprint"):
        return [data.fingerprint]
    if dataclasses.is_dataclass(data):
        data = [getattr(data, f.name) for f in dataclasses.fields(data)]
    elif isinstance(data, dict):
        data = list(data.values())
    if isinstance(data, list | tuple):
        return [mark for part in data for mark in _fingerprints(part)]
    return []
