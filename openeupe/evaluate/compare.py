"""Which encoder is better, on which column, and is it noise: from kept results alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openeupe.errors import InputError
from openeupe.evaluate.results import Results
from openeupe.evaluate.statistics import Difference, corrected, difference, verdict


@dataclass(frozen=True)
class Compared:
    """One column of two encoders.

    gain: first minus second, positive where the first is better, whatever the column's direction.
    p: two-sided, adjusted by Holm over the columns of this pair.
    """

    column: str
    gain: Difference
    p: float
    unit: str

    @property
    def verdict(self) -> str:
        """Of these two encoders: see `statistics.verdict`."""
        return verdict(self.gain, self.p)


def compare(first: Results, second: Results, columns: Sequence[str]) -> list[Compared]:
    """Compare two encoders on the columns that the `results.json` of both has.

    Raises:
        InputError: if a column was measured by another protocol, or on other data.
    """
    check_all([first, second], columns)
    shown = [results.read()["columns"] for results in (first, second)]
    found = []
    for name in columns:
        if not all("headline" in saved.get(name, {}) for saved in shown):
            continue
        measure = first.measure(name)
        try:
            gap = difference(measure, second.measure(name))
        except ValueError as error:
            raise InputError(f"column {name}: {first.folder}, {second.folder}: {error}") from None
        if not measure.higher_is_better:
            gap = gap.turned()
        found.append((name, gap, measure.unit))
    adjusted = corrected([gap for _, gap, _ in found])
    return [
        Compared(name, gap, p, unit) for (name, gap, unit), p in zip(found, adjusted, strict=True)
    ]


def check_comparable(
    name: str, first: tuple[Path, Mapping[str, Any]], second: tuple[Path, Mapping[str, Any]]
) -> None:
    """Refuse two results of one column that rest on other settings or data.

    Args:
        first, second: the folder of the results, and what is saved of the column.

    Raises:
        InputError: in one line.
    """
    if unlike := what_differs(first[1], second[1]):
        raise InputError(
            f"column {name}: {first[0]} and {second[0]} were evaluated with other {unlike[0]}: "
            "evaluate both with the same suite and --data"
        )


def what_differs(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """In which of "settings" and "data" two saved results of one column differ."""
    compared = {"settings": "protocol_hash", "data": "data"}
    return [what for what, key in compared.items() if one.get(key) != other.get(key)]


def check_all(everyone: Sequence[Results], columns: Sequence[str]) -> None:
    """Refuse results that stand next to each other on a column of other settings or data.

    Raises:
        InputError: in one line.
    """
    first: dict[str, tuple[Path, Mapping[str, Any]]] = {}
    for results in everyone:
        saved = results.read()["columns"]
        for name in columns:
            if "headline" in saved.get(name, {}):
                here = (results.folder, saved[name])
                check_comparable(name, first.setdefault(name, here), here)


def _value(column: Mapping[str, Any]) -> float | None:
    """The headline figure; None where there is none."""
    headline = column.get("headline")
    value: float | None = column["figures"][headline]["value"] if headline else None
    return value


def mean_ranks(everyone: Sequence[Results], columns: Sequence[str]) -> list[float]:
    """Mean rank of each encoder over the columns that all have; 1 is best, ties share.

    The only aggregate given: columns have no common unit. nan if no column is common to all.

    Raises:
        InputError: if a column was measured by another protocol, or on other data.
    """
    check_all(everyone, columns)
    shown = [results.read()["columns"] for results in everyone]
    ranks: list[list[float]] = [[] for _ in everyone]
    for name in columns:
        there = [
            saved[name] for saved in shown if name in saved and _value(saved[name]) is not None
        ]
        if len(there) < len(everyone):
            continue
        figures = [c["figures"][c["headline"]] for c in there]
        sign = 1 if figures[0]["higher_is_better"] else -1
        values = [sign * figure["value"] for figure in figures]
        for place, value in enumerate(values):
            above = sum(other > value for other in values)
            equal = sum(other == value for other in values)
            ranks[place].append(above + (equal + 1) / 2)
    return [sum(r) / len(r) if r else math.nan for r in ranks]
