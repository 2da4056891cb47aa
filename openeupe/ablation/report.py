"""Write a study's results as JSON and Markdown tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from openeupe.ablation.study import LoadedStudy
from openeupe.ablation.study_results import ArmDifference, Cost, StudyResults
from openeupe.evaluation.machine import machine
from openeupe.evaluation.records import Metric
from openeupe.files import strict_json, write_atomically
from openeupe.table import Table


def results_file(out: Path, study: str) -> Path:
    """The JSON file of a study's results. Studies that share a folder each have their own."""
    return out / f"results-{study}.json"


def tables_file(out: Path, study: str) -> Path:
    """The Markdown file of a study's tables."""
    return out / f"tables-{study}.md"


@dataclass(frozen=True)
class ArmResults:
    """The results of an arm over its seeds. benchmarks: the headline metric of each."""

    seeds: int
    cost: Cost | None
    benchmarks: dict[str, Metric]


def report(results: StudyResults) -> dict[str, object]:
    """Write both files of the results so far. Return the contents of the JSON file."""
    study, out = results.loaded.study, results.place.out
    arms = {arm: _arm(results, arm) for arm in study.arms}
    compared = {table: results.compare(table) for table in study.tables}
    content: dict[str, object] = {
        "study": study.name,
        "suite": results.loaded.suite.name,
        "seeds": list(study.seeds),
        "steps": study.steps,
        "arms": {name: _arm_json(arm) for name, arm in arms.items()},
        "tables": {table: [row.to_json() for row in rows] for table, rows in compared.items()},
        **machine().model_dump(),
        "stale": results.stale,
    }
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(results_file(out, study.name), strict_json(content))
    parts = [f"# {study.name}\n", study.note]
    for table in study.tables:
        parts.append(_table(results.loaded, table, arms, compared[table]))
    if results.stale:
        left = "; ".join(results.stale)
        parts.append(
            f"\nLeft out, not of the study's present settings and encoders: {left}. "
            "Run the study again."
        )
    text = "\n".join(part for part in parts if part) + "\n"
    write_atomically(tables_file(out, study.name), text)
    return content


def _arm(results: StudyResults, arm: str) -> ArmResults:
    found = {}
    for benchmark in results.loaded.benchmarks:
        measure = results.measure(arm, benchmark)
        if measure is not None:
            found[benchmark] = Metric.of(benchmark, measure)
    return ArmResults(results.seeds(arm), results.cost(arm), found)


def _arm_json(arm: ArmResults) -> dict[str, object]:
    benchmarks = {name: metric.model_dump() for name, metric in arm.benchmarks.items()}
    cost = asdict(arm.cost) if arm.cost else None
    return {"seeds": arm.seeds, "cost": cost, "benchmarks": benchmarks}


def _table(
    loaded: LoadedStudy,
    table: str,
    arms: dict[str, ArmResults],
    compared: Sequence[ArmDifference],
) -> str:
    config = loaded.study.tables[table]
    if config.effects:
        note = (
            "Mean difference of the pairs of each, positive where it makes better; p after Holm's "
            f"correction over {len(compared)} tests, paired over seeds and test items.\n"
        )
        parts = [f"## {table}\n", config.note, note, _differences(compared, "effect"),
                 _one_seed(compared)]  # fmt: skip
        return "\n".join(part for part in parts if part)
    benchmarks = list(config.benchmarks or loaded.benchmarks)
    verdicts = {(one.row, one.benchmark): one.verdict for one in compared}
    marks = {"better": " ▲", "worse": " ▼"}
    arrows = {c: metric.arrow for arm in arms.values() for c, metric in arm.benchmarks.items()}
    header = ["", "images", "all images", "PFLOP", "seeds"]
    header += [benchmark + arrows.get(benchmark, "") for benchmark in benchmarks]
    rows = []
    for row in config.rows:
        arm = arms[row]
        cells = [row, "", "", ""]
        if cost := arm.cost:
            cells = [row, f"{cost.images:,}", f"{cost.all_images:,}", f"{cost.petaflops:,.2f}"]
        cells.append(str(arm.seeds))
        for benchmark in benchmarks:
            metric = arm.benchmarks.get(benchmark)
            mark = marks.get(verdicts.get((row, benchmark), ""), "")
            cells.append("–" if metric is None else _score(metric) + mark)
        rows.append(cells)
    parts = [f"## {table}\n", config.note, Table(header, rows).markdown()]
    if config.reference:
        parts.append(
            f"\nScore ± standard deviation over seeds. ▲ ▼: better, worse than {config.reference} "
            f"at 5 % after Holm's correction over {len(compared)} tests, paired over seeds and "
            "test items.\n"
        )
        parts.append(_differences(compared, f"minus {config.reference}"))
        parts.append(_one_seed(compared))
    return "\n".join(part for part in parts if part)


def _differences(compared: Sequence[ArmDifference], first: str) -> str:
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
    return Table(header, rows).markdown()


def _one_seed(compared: Sequence[ArmDifference]) -> str:
    if not any(one.gain.one_seed for one in compared):
        return ""
    return (
        "\n† One seed: interval and p are about the test items alone. The noise of training is "
        "unknown, so that there is no verdict: run two seeds or more."
    )


def _score(metric: Metric) -> str:
    text, spread = metric.text(metric.value), metric.training_std
    return text if spread is None else f"{text} ± {metric.text(spread)}"
