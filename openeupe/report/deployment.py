"""Tables of a run's exports and their latencies."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openeupe.deployment.export_folder import LATENCY
from openeupe.encoders.export_layout import ABOUT
from openeupe.identity import settings_identity
from openeupe.report.belonging import Belonging

_EXPORT, _LATENCY = ABOUT, LATENCY
# The first columns of each kind of file.
_WANTED = {
    _EXPORT: (
        *("target", "precision", "size", "passed", "cls.worst", "patches.mean", "patches.worst"),
        "images",
    ),
    _LATENCY: (
        *("label", "precision", "size", "threads", "latency_p50_ms", "latency_p90_ms"),
        *("ratio_median", "images_per_second", "memory_mb", "megabytes"),
    ),
}
_TITLES = {
    _EXPORT: "Exported files, and how they agree with the encoder (cosines)",
    _LATENCY: "Speed, memory and size, as measured",
}


@dataclass(frozen=True)
class Deployed:
    """A table. rows: beginning with the place of the file each comes from."""

    title: str
    header: list[str]
    rows: list[list[str]]


def deployed(
    folder: Path, belonging: Belonging, exports: Path | None = None
) -> tuple[list[Deployed], list[str]]:
    """Tables of exports and their latencies: those in a run folder, and in the folder `exports`.

    Returns the tables, and a sentence on each file of the run folder that is not shown, because
    it was made of other weights than those of the run's students.
    """
    kinds: dict[str, list[dict[str, str]]] = {_EXPORT: [], _LATENCY: []}
    left_out = []
    for place in _places(folder, exports):
        inside = place.resolve().is_relative_to(folder.resolve())
        name = place.resolve().relative_to(folder.resolve()) if inside else place
        about = _read(place / _EXPORT)
        if not belonging.exported(about):
            if inside:
                left_out.append(
                    f"{name.as_posix()} is not shown: it was not made of a student that is here "
                    "now. Export again."
                )
            continue
        kinds[_EXPORT] += [{"folder": name.as_posix(), **row} for row in _rows(about) if row]
        measured = _read(place / _LATENCY)
        if isinstance(measured, dict) and measured.get("export") == settings_identity(about):
            rows = [{"folder": name.as_posix(), **row} for row in _rows(measured) if row]
            kinds[_LATENCY] += rows
        elif (place / _LATENCY).is_file():
            left_out.append(
                f"{(name / _LATENCY).as_posix()} is not shown: it is damaged, or was not "
                f"measured on the export that is there now. Run openeupe latency {place} again."
            )
    return [_table(kind, rows) for kind, rows in kinds.items() if rows], left_out


def _places(folder: Path, exports: Path | None) -> list[Path]:
    """Folders of exports, each once."""
    found = [*folder.glob(f"**/{_EXPORT}"), *(exports.glob(f"*/{_EXPORT}") if exports else ())]
    return sorted({path.resolve(): path.parent for path in reversed(found)}.values())


def _table(kind: str, rows: list[dict[str, str]]) -> Deployed:
    found = {key for row in rows for key in row}
    header = ["folder", *(key for key in _WANTED[kind] if key in found)]
    return Deployed(_TITLES[kind], header, [[row.get(key, "") for key in header] for row in rows])


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None  # half-written: the next report has it


def _rows(content: Any) -> Iterator[dict[str, str]]:
    """Records of JSON: a list, the only list in a mapping, or the mapping itself.

    Other values next to such a list belong to all its rows.
    """
    if isinstance(content, list):
        yield from (dict(_flat(row)) for row in content)
        return
    if not isinstance(content, dict):
        return
    lists = [
        value
        for value in content.values()
        if isinstance(value, list) and value and all(isinstance(v, dict) for v in value)
    ]
    if len(lists) != 1:
        yield dict(_flat(content))
        return
    shared = dict(_flat({k: v for k, v in content.items() if not isinstance(v, dict | list)}))
    yield from ({**shared, **dict(_flat(row))} for row in lists[0])


def _flat(row: Any, before: str = "") -> Iterator[tuple[str, str]]:
    """Scalars by dotted name, as text."""
    for key, value in row.items() if isinstance(row, dict) else ():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{key}.")
        elif isinstance(value, bool):
            yield f"{before}{key}", "yes" if value else "no"
        elif isinstance(value, float):
            # Cosines differ in their later digits.
            yield f"{before}{key}", f"{value:.6f}" if 0.9 < value < 1 else f"{value:.4g}"
        elif isinstance(value, str | int):
            yield f"{before}{key}", str(value)
        elif isinstance(value, list) and value and all(isinstance(v, int) for v in value):
            yield f"{before}{key}", "x".join(map(str, value))
