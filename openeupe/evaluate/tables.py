"""Tables of results, drawn from `results.json` alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table

from openeupe.evaluate.compare import Compared

DOMAINS = {
    "image": "image understanding",
    "language": "vision-language",
    "text": "text",
    "dense": "dense prediction",
}
Row = list[str]


def one(content: Mapping[str, Any], columns: Sequence[str]) -> tuple[Row, list[Row]]:
    """Header and rows for one encoder: a row for each column."""
    header = ["domain", "column", "figure", "", "95 % interval", "seeds ±", "floor", "n"]
    rows = []
    for name in _by_domain(content["columns"], columns):
        column = content["columns"][name]
        domain = DOMAINS[column["domain"]]
        if "headline" not in column:
            rows.append([domain, name, "n/a", column["missing"], "", "", "", ""])
            continue
        figure = column["figures"][column["headline"]]
        low, high = _number(figure["low"], figure), _number(figure["high"], figure)
        spread = figure["training_std"]
        floor = "; ".join(f"{k} {_number(v, figure)}" for k, v in column["floors"].items())
        rows.append(
            [
                domain,
                name,
                _flagged(column, figure),
                column["headline"] + ("" if figure["higher_is_better"] else " (lower is better)"),
                f"{low} to {high}",
                "" if spread is None else f"{_number(spread, figure)} ({len(figure['per_seed'])})",
                floor,
                f"{figure['samples']:,}",
            ]
        )
    return header, rows


def many(
    contents: Sequence[Mapping[str, Any]], names: Sequence[str], columns: Sequence[str]
) -> tuple[Row, list[Row]]:
    """Header and rows for several encoders side by side: figure ± half the 95 % interval."""
    header = ["column", *names]
    rows = []
    first: dict[str, Any] = {}
    for content in contents:
        first = {**content["columns"], **first}
    for name in _by_domain(first, columns):
        cells = []
        arrow = ""
        for content in contents:
            column = content["columns"].get(name, {"missing": "not evaluated"})
            if "headline" not in column:
                cells.append("n/a")
                continue
            figure = column["figures"][column["headline"]]
            arrow = f" {column['headline']}" + ("" if figure["higher_is_better"] else " ↓")
            half = (figure["high"] - figure["low"]) / 2
            cells.append(f"{_flagged(column, figure)} ± {_number(half, figure)}")
        rows.append([f"{name}{arrow}", *cells])
    return header, rows


def differences(compared: Sequence[Compared]) -> tuple[Row, list[Row]]:
    """Header and rows of a paired comparison."""
    header = ["column", "gain", "95 % interval", "p (Holm)", "the first is"]
    rows = []
    for each in compared:
        digits = 3 if each.unit == "m" else 1
        gain = each.gain
        rows.append(
            [
                each.column,
                f"{gain.delta:+.{digits}f} {each.unit}".strip(),
                f"{gain.low:+.{digits}f} to {gain.high:+.{digits}f}",
                f"{each.p:.4f}",
                each.verdict,
            ]
        )
    return header, rows


def rich_table(header: Row, rows: Sequence[Row], title: str = "") -> Table:
    """For a terminal."""
    table = Table(*header, box=box.SIMPLE_HEAD, title=title or None, title_justify="left")
    for row in rows:
        table.add_row(*row)
    return table


def markdown(header: Row, rows: Sequence[Row]) -> str:
    """For a README or a paper's notes."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _by_domain(columns: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    there = [name for name in names if name in columns]
    return sorted(there, key=lambda name: list(DOMAINS).index(columns[name]["domain"]))


def _flagged(column: Mapping[str, Any], figure: Mapping[str, Any]) -> str:
    """The figure; with a question mark where a probe did not resolve this ability at all."""
    resolved = column["details"].get("resolved", True)
    return _number(figure["value"], figure) + ("" if resolved else " ?")


def _number(value: float | None, figure: Mapping[str, Any]) -> str:
    if value is None:
        return "n/a"
    if figure["unit"] == "%":
        return f"{value:.1f}"
    return f"{value:.3f}" if figure["scale"] == 1 else f"{value:.1f}"
