"""A study's results as files: JSON for machines, Markdown tables for a page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from openeupe.ablation.outcome import Compared, Outcome
from openeupe.evaluation.results import machine
from openeupe.evaluation.statistics import interval
from openeupe.evaluation.tables import markdown
from openeupe.files import strict_json, write_atomically


def results_file(out: Path, study: str) -> Path:
    """The JSON file of a study's results; studies that share a folder each have their own."""
    return out / f"results-{study}.json"


def tables_file(out: Path, study: str) -> Path:
    """The Markdown file of a study's tables."""
    return out / f"tables-{study}.md"


def report(outcome: Outcome) -> dict[str, Any]:
    """Write both files of what is there so far; returns what the JSON file holds."""
    study = outcome.loaded.study
    compared = {table: outcome.compare(table) for table in study.tables}
    content: dict[str, Any] = {
        "study": study.name,
        "suite": outcome.loaded.suite.name,
        "seeds": list(study.seeds),
        "steps": study.steps,
        "arms": {arm: _arm(outcome, arm) for arm in study.arms},
        "tables": {
            table: [{**asdict(one), "verdict": one.verdict} for one in rows]
            for table, rows in compared.items()
        },
        **machine(),
    }
    content["stale"] = outcome.stale
    out = outcome.place.out
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(results_file(out, study.name), strict_json(content))
    parts = [f"# {study.name}\n", study.note]
    for table in study.tables:
        parts.append(_table(outcome, table, content["arms"], compared[table]))
    if outcome.stale:
        left = "; ".join(outcome.stale)
        parts.append(
            f"\nLeft out, not of the study's present settings and encoders: {left}. "
            "Run the study again."
        )
    text = "\n".join(part for part in parts if part) + "\n"
    write_atomically(tables_file(out, study.name), text)
    return content


def _arm(outcome: Outcome, arm: str) -> dict[str, Any]:
    cost = outcome.cost(arm)
    benchmarks = {}
    for benchmark in outcome.loaded.benchmarks:
        measure = outcome.measure(arm, benchmark)
        if measure is not None:
            benchmarks[benchmark] = {
                **asdict(interval(measure)),
                "per_seed": measure.per_seed.tolist(),
                "unit": measure.unit,
                "scale": measure.scale,
                "higher_is_better": measure.higher_is_better,
            }
    return {
        "seeds": outcome.seeds(arm),
        "cost": asdict(cost) if cost else None,
        "benchmarks": benchmarks,
    }


def _table(outcome: Outcome, table: str, arms: dict[str, Any], compared: Sequence[Compared]) -> str:
    config = outcome.loaded.study.tables[table]
    if config.effects:
        told = (
            "Mean difference of the pairs of each, positive where it makes better; p after Holm's "
            f"correction over {len(compared)} tests, paired over seeds and test items.\n"
        )
        parts = [f"## {table}\n", config.note, told, _differences(compared, "effect"),
                 _one_seed(compared)]  # fmt: skip
        return "\n".join(part for part in parts if part)
    benchmarks = list(config.benchmarks or outcome.loaded.benchmarks)
    verdicts = {(one.row, one.benchmark): one.verdict for one in compared}
    marks = {"better": " ▲", "worse": " ▼"}
    errors = {c for arm in arms.values() for c, f in arm["benchmarks"].items()
              if not f["higher_is_better"]}  # fmt: skip
    header = ["", "images", "all images", "PFLOP", "seeds"]
    header += [f"{benchmark} ↓" if benchmark in errors else benchmark for benchmark in benchmarks]
    rows = []
    for row in config.rows:
        arm = arms[row]
        cost = arm["cost"]
        cells = [row, "", "", ""]
        if cost:
            cells = [row, f"{cost['images']:,}", f"{cost['all_images']:,}",
                     f"{cost['petaflops']:,.2f}"]  # fmt: skip
        cells.append(str(arm["seeds"]))
        for benchmark in benchmarks:
            figure = arm["benchmarks"].get(benchmark)
            mark = marks.get(verdicts.get((row, benchmark), ""), "")
            cells.append("–" if figure is None else _figure(figure) + mark)
        rows.append(cells)
    parts = [f"## {table}\n", config.note, markdown(header, rows)]
    if config.reference:
        parts.append(
            f"\nFigure ± standard deviation over seeds. ▲ ▼: better, worse than {config.reference} "
            f"at 5 % after Holm's correction over {len(compared)} tests, paired over seeds and "
            "test items.\n"
        )
        parts.append(_differences(compared, f"minus {config.reference}"))
        parts.append(_one_seed(compared))
    return "\n".join(part for part in parts if part)


def _differences(compared: Sequence[Compared], first: str) -> str:
    header = [first, "benchmark", "gain (95 %)", "p, Holm", "std of seeds",
              "would have shown", "seeds to show it"]  # fmt: skip
    rows = []
    for one in compared:
        power, gain = one.power, one.gain
        digits = 1 if one.unit == "%" else 3
        cells = [one.row, one.benchmark,
                 f"{gain.delta:+.{digits}f} ({gain.low:+.{digits}f} to {gain.high:+.{digits}f})",
                 f"{one.p:.3f}" + " †" * one.gain.one_seed]  # fmt: skip
        if power:
            needed = power.seeds_needed
            cells += [f"{power.seed_std:.{digits}f}", f"{power.resolvable:.{digits}f}",
                      "no number" if needed is None else str(needed)]  # fmt: skip
        else:
            cells += ["", "", ""]
        rows.append(cells)
    return markdown(header, rows)


def _one_seed(compared: Sequence[Compared]) -> str:
    if not any(one.gain.one_seed for one in compared):
        return ""
    return (
        "\n† One seed: interval and p are about the test items alone. The noise of training is "
        "unknown, so that there is no verdict: run two seeds or more."
    )


def _figure(figure: dict[str, Any]) -> str:
    digits = 1 if figure["scale"] != 1 else 3
    spread = figure["training"]
    told = f"{figure['value']:.{digits}f}"
    return told if not math.isfinite(spread) else f"{told} ± {spread:.{digits}f}"
