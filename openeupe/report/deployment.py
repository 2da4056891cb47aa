"""Exports and benchmarks that belong to a run, as far as their files are understood."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_EXPORT, _BENCHMARK = "export.json", "benchmark.json"
# Of each kind of file, what a reader wants first; of others whatever comes first.
_WANTED = {
    _EXPORT: (
        *("target", "precision", "size", "passed", "cls.worst", "patches.mean", "patches.worst"),
        "photos",
    ),
    _BENCHMARK: (
        *("label", "precision", "size", "threads", "latency_p50_ms", "latency_p90_ms"),
        *("ratio_median", "images_per_second", "memory_mb", "megabytes"),
    ),
}
_TITLES = {
    _EXPORT: "Exported files, and how they agree with the encoder (cosines)",
    _BENCHMARK: "Speed, memory and size, as measured",
}
_MOST_COLUMNS = 10


@dataclass(frozen=True)
class Deployed:
    """A table. rows: beginning with the place of the file each comes from."""

    title: str
    header: list[str]
    rows: list[list[str]]


def deployed(folder: Path) -> list[Deployed]:
    """Tables of the exports and benchmarks in a run folder, or made of it into `exports/` here."""
    files = {*folder.glob(f"**/{_EXPORT}"), *folder.glob("**/benchmark*.json")}
    files |= {*folder.glob("deploy/**/*.json")}
    for path in Path("exports").glob(f"*/{_EXPORT}"):
        if _made_of(path, folder):
            files |= {path, *path.parent.glob("benchmark*.json")}
    kinds: dict[str, list[dict[str, str]]] = {}
    for path in sorted(files):
        inside = path.is_relative_to(folder)
        place = (path.relative_to(folder) if inside else path).parent.as_posix()
        kind = _BENCHMARK if path.name.startswith("benchmark") else path.name
        for row in _rows(_read(path)):
            if row:
                kinds.setdefault(kind, []).append({"folder": place, **row})
    ordered = dict.fromkeys([*_TITLES, *kinds])
    return [_table(kind, kinds[kind]) for kind in ordered if kind in kinds]


def _table(kind: str, rows: list[dict[str, str]]) -> Deployed:
    found = [key for key in dict.fromkeys(key for row in rows for key in row) if key != "folder"]
    keys = [key for key in _WANTED.get(kind, ()) if key in found] or found[:_MOST_COLUMNS]
    header = ["folder", *keys]
    return Deployed(
        _TITLES.get(kind, kind), header, [[row.get(key, "") for key in header] for row in rows]
    )


def _made_of(export: Path, folder: Path) -> bool:
    """Whether an export's source is the run or a stage of it."""
    content = _read(export)
    source = content.get("source") if isinstance(content, dict) else None
    return isinstance(source, str) and Path(source).resolve().is_relative_to(folder.resolve())


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None  # half-written: the next report has it


def _rows(content: Any) -> Iterator[dict[str, str]]:
    """A list of records, alone or under the only key that holds one; else the whole as one row.

    What stands beside such a list belongs to every row of it.
    """
    if isinstance(content, list):
        yield from (dict(_told(row)) for row in content)
        return
    if not isinstance(content, dict):
        return
    lists = [
        value
        for value in content.values()
        if isinstance(value, list) and value and all(isinstance(v, dict) for v in value)
    ]
    if len(lists) != 1:
        yield dict(_told(content))
        return
    shared = dict(_told({k: v for k, v in content.items() if not isinstance(v, dict | list)}))
    yield from ({**shared, **dict(_told(row))} for row in lists[0])


def _told(row: Any, before: str = "") -> Iterator[tuple[str, str]]:
    """Scalars by dotted name, as text."""
    for key, value in row.items() if isinstance(row, dict) else ():
        if isinstance(value, dict):
            yield from _told(value, f"{before}{key}.")
        elif isinstance(value, bool):
            yield f"{before}{key}", "yes" if value else "no"
        elif isinstance(value, float):
            # A cosine's news is in its later digits.
            yield f"{before}{key}", f"{value:.6f}" if 0.9 < value < 1 else f"{value:.4g}"
        elif isinstance(value, str | int):
            yield f"{before}{key}", str(value)
        elif isinstance(value, list) and value and all(isinstance(v, int) for v in value):
            yield f"{before}{key}", "x".join(map(str, value))
