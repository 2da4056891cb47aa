"""Tables of results, drawn from `results.json` alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from openeupe.evaluation.compare import Compared

DOMAINS = ("image", "language", "text", "dense")  # the order of rows
Row = list[str]


def one(content: Mapping[str, Any], benchmarks: Sequence[str]) -> tuple[Row, list[Row]]:
    """Header and rows for one encoder: a row for each benchmark."""
    header = ["benchmark", "figure", "95 % interval", "± seeds", "floor", "n"]
    rows = []
    for name in _by_domain(content["benchmarks"], benchmarks):
        benchmark = content["benchmarks"][name]
        if "headline" not in benchmark:
            rows.append([name, "n/a", "", "", "", ""])
            continue
        figure = benchmark["figures"][benchmark["headline"]]
        low, high = _number(figure["low"], figure), _number(figure["high"], figure)
        spread = figure["training_std"]
        rows.append(
            [
                f"{name} {benchmark['headline']}{_arrow(figure)}",
                _flagged(benchmark, figure),
                f"{low} to {high}",
                "" if spread is None else _number(spread, figure),
                _hardest_floor(benchmark["floors"], figure),
                f"{figure['samples']:,}",
            ]
        )
    return header, rows


def notes(content: Mapping[str, Any], benchmarks: Sequence[str]) -> list[str]:
    """What a table's marks mean: why a benchmark is missing, what a question mark says."""
    lines = []
    for name in benchmarks:
        benchmark = content["benchmarks"].get(name, {})
        if "missing" in benchmark:
            lines.append(f"{name}: n/a, {benchmark['missing']}")
        elif not benchmark.get("details", {}).get("resolved", True):
            lines.append(f"{name}: ? = not resolved by this probe, its best is too near its floors")
    return lines


def many(
    contents: Sequence[Mapping[str, Any]], names: Sequence[str], benchmarks: Sequence[str]
) -> tuple[Row, list[Row]]:
    """Header and rows for several encoders side by side: figure ± half the 95 % interval."""
    header = ["benchmark", *names]
    rows = []
    first: dict[str, Any] = {}
    for content in contents:
        first = {**content["benchmarks"], **first}
    for name in _by_domain(first, benchmarks):
        cells = []
        arrow = ""
        for content in contents:
            benchmark = content["benchmarks"].get(name, {"missing": "not evaluated"})
            if "headline" not in benchmark:
                cells.append("n/a")
                continue
            figure = benchmark["figures"][benchmark["headline"]]
            arrow = f" {benchmark['headline']}{_arrow(figure)}"
            low, high = figure["low"], figure["high"]
            half = None if low is None or high is None else (high - low) / 2
            cells.append(f"{_flagged(benchmark, figure)} ± {_number(half, figure)}")
        rows.append([f"{name}{arrow}", *cells])
    return header, rows


def differences(compared: Sequence[Compared]) -> tuple[Row, list[Row]]:
    """Header and rows of a paired comparison."""
    header = ["benchmark", "gain", "95 % interval", "p (Holm)", "the first is"]
    rows = []
    for each in compared:
        digits = 1 if each.unit == "%" else 3
        gain = each.gain
        rows.append(
            [
                each.benchmark,
                f"{gain.delta:+.{digits}f} {each.unit}".strip(),
                f"{gain.low:+.{digits}f} to {gain.high:+.{digits}f}",
                f"{each.p:.4f}",
                each.verdict,
            ]
        )
    return header, rows


def summary(compared: Sequence[Compared], first: str) -> str:
    """How often `first` is better or worse, in a sentence or two."""
    verdicts = [each.verdict for each in compared]
    one_seed = verdicts.count("one seed: no verdict")
    text = (
        f"{first} is better on {verdicts.count('better')} benchmarks, worse on "
        f"{verdicts.count('worse')}; no difference shown on "
        f"{verdicts.count('no difference shown')}."
    )
    if one_seed:
        text += (
            f" No verdict on {one_seed}: these test items show a difference, but a probe was "
            "trained with one seed, and the noise of its training is not in p."
        )
    return text


def markdown(header: Row, rows: Sequence[Row]) -> str:
    """For a README or a paper's notes."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _by_domain(benchmarks: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    there = [name for name in names if name in benchmarks]
    return sorted(there, key=lambda name: DOMAINS.index(benchmarks[name]["domain"]))


def _flagged(benchmark: Mapping[str, Any], figure: Mapping[str, Any]) -> str:
    """The figure; with a question mark where a probe did not resolve this ability at all."""
    resolved = benchmark["details"].get("resolved", True)
    return _number(figure["value"], figure) + ("" if resolved else " ?")


def _arrow(figure: Mapping[str, Any]) -> str:
    return "" if figure["higher_is_better"] else " ↓"


def _hardest_floor(floors: Mapping[str, float | None], figure: Mapping[str, Any]) -> str:
    known = {name: value for name, value in floors.items() if value is not None}
    if not known:
        return ""
    best = max if figure["higher_is_better"] else min
    name = best(known, key=lambda floor: known[floor])
    return f"{_number(known[name], figure)} {name}"


def _number(value: float | None, figure: Mapping[str, Any]) -> str:
    if value is None:
        return "n/a"
    if figure["unit"] == "%":
        return f"{value:.1f}"
    return f"{value:.3f}" if figure["scale"] == 1 else f"{value:.1f}"
