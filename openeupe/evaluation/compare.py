"""Which encoder is better, on which benchmark, and is it noise: from kept results alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openeupe.errors import InputError
from openeupe.evaluation.results import Results
from openeupe.evaluation.statistics import Difference, corrected, difference, verdict


@dataclass(frozen=True)
class Compared:
    """One benchmark of two encoders.

    gain: first minus second, positive where the first is better, whatever the direction.
    p: two-sided, adjusted by Holm over the benchmarks of this pair.
    """

    benchmark: str
    gain: Difference
    p: float
    unit: str

    @property
    def verdict(self) -> str:
        """Of these two encoders: see `statistics.verdict`."""
        return verdict(self.gain, self.p)


def compare(first: Results, second: Results, benchmarks: Sequence[str]) -> list[Compared]:
    """Compare two encoders on the benchmarks that the `results.json` of both has.

    Raises:
        InputError: if a benchmark was measured by another protocol, or on other data.
    """
    check_all([first, second], benchmarks)
    shown = [results.read()["benchmarks"] for results in (first, second)]
    found = []
    for name in benchmarks:
        if not all("headline" in saved.get(name, {}) for saved in shown):
            continue
        measure = first.measure(name)
        try:
            gap = difference(measure, second.measure(name))
        except ValueError as error:
            raise InputError(
                f"benchmark {name}: {first.folder}, {second.folder}: {error}"
            ) from None
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
    """Refuse two results of one benchmark that rest on other settings or data.

    Args:
        first, second: the folder of the results, and what is saved of the benchmark.

    Raises:
        InputError: in one line.
    """
    if unlike := what_differs(first[1], second[1]):
        raise InputError(
            f"benchmark {name}: {first[0]} and {second[0]} were evaluated with other {unlike[0]}: "
            "evaluate both with the same suite and --data"
        )


def what_differs(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """In which of "settings" and "data" two saved results of one benchmark differ."""
    compared = {"settings": "protocol_hash", "data": "data"}
    return [what for what, key in compared.items() if one.get(key) != other.get(key)]


def check_all(everyone: Sequence[Results], benchmarks: Sequence[str]) -> None:
    """Refuse results that stand next to each other on a benchmark of other settings or data.

    Raises:
        InputError: in one line.
    """
    first: dict[str, tuple[Path, Mapping[str, Any]]] = {}
    for results in everyone:
        saved = results.read()["benchmarks"]
        for name in benchmarks:
            if "headline" in saved.get(name, {}):
                here = (results.folder, saved[name])
                check_comparable(name, first.setdefault(name, here), here)


def _value(benchmark: Mapping[str, Any]) -> float | None:
    """The headline figure; None where there is none."""
    headline = benchmark.get("headline")
    value: float | None = benchmark["figures"][headline]["value"] if headline else None
    return value


def mean_ranks(everyone: Sequence[Results], benchmarks: Sequence[str]) -> list[float]:
    """Mean rank of each encoder over the benchmarks that all have; 1 is best, ties share.

    The only aggregate given: benchmarks have no common unit. nan if no benchmark is common to all.

    Raises:
        InputError: if a benchmark was measured by another protocol, or on other data.
    """
    check_all(everyone, benchmarks)
    shown = [results.read()["benchmarks"] for results in everyone]
    ranks: list[list[float]] = [[] for _ in everyone]
    for name in benchmarks:
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
