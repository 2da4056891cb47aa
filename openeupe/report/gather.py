"""What a run folder holds, finished or not, in the order in which the page tells it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openeupe.distill.metrics import read_metrics
from openeupe.distill.recipe import StageConfig
from openeupe.distill.run import Run
from openeupe.errors import InputError
from openeupe.evaluate.results import Results


@dataclass(frozen=True)
class Curve:
    """A loss over a stage. student, teacher: names; kind: "cls" or "patches"."""

    student: str
    teacher: str
    kind: str
    steps: list[int]
    losses: list[float]


@dataclass(frozen=True)
class StageStory:
    """A stage so far. done: steps logged. about: `finished.json`, empty until the stage ends."""

    name: str
    config: StageConfig
    finished: bool
    done: int
    curves: list[Curve]
    about: dict[str, Any]

    @property
    def state(self) -> str:
        if self.finished:
            return "finished"
        return f"at step {self.done} of {self.config.steps}" if self.done else "not begun"


@dataclass(frozen=True)
class Evaluation:
    """Results of `openeupe evaluate`. label: what charts call the encoder."""

    label: str
    suite: str
    content: dict[str, Any]


@dataclass(frozen=True)
class Story:
    """Everything of a run that its page tells, besides pictures.

    quickstart: the tables of `openeupe quickstart`, empty elsewhere. deployment: a row for each
    exported or timed file, by column.
    """

    run: Run
    stages: list[StageStory]
    quickstart: dict[str, Any]
    evaluations: list[Evaluation]
    deployment: list[dict[str, str]]

    @property
    def unfinished(self) -> list[StageStory]:
        return [stage for stage in self.stages if not stage.finished]


def gather(folder: Path, results: Sequence[Path] = ()) -> Story:
    """Read a run folder.

    Args:
        results: further results folders of `openeupe evaluate`, to stand beside the run's own.

    Raises:
        InputError: if it is no run folder, or a file of it is damaged.
    """
    run = Run.open(folder)
    return Story(
        run,
        [_stage(run, name) for name in run.recipe.stages],
        _quickstart(folder / "results.json"),
        list(_evaluations(folder, results)),
        list(_deployment(folder)),
    )


def _stage(run: Run, name: str) -> StageStory:
    folder, config = run.folder / name, run.recipe.stages[name]
    path = folder / "metrics.jsonl"
    records = read_metrics(path) if path.is_file() else []
    finished = run.finished(name)
    about = _json(folder / "finished.json") if finished else {}
    done = int(records[-1]["step"]) if records else 0
    return StageStory(name, config, finished, done, _curves(config, records), about)


def _curves(config: StageConfig, records: Sequence[Mapping[str, Any]]) -> list[Curve]:
    """Losses as the trainer names them: `loss/[STUDENT/]TEACHER/KIND`."""
    only = next(iter(config.students))
    curves = []
    for key in dict.fromkeys(key for r in records for key in r if key.startswith("loss/")):
        *student, teacher, kind = key.split("/")[1:]
        there = [r for r in records if key in r]
        steps, losses = [r["step"] for r in there], [r[key] for r in there]
        curves.append(Curve(student[0] if student else only, teacher, kind, steps, losses))
    return curves


def _quickstart(path: Path) -> dict[str, Any]:
    content = _json(path) if path.is_file() else {}
    return content if "fidelity" in content else {}


def _evaluations(folder: Path, results: Sequence[Path]) -> Iterator[Evaluation]:
    own = sorted(path for path in folder.glob("**/evaluations/*") if Results.there(path))
    for path in [*own, *results]:
        content = Results.open(path).read()
        config = content["config"]
        label = str(config["model"])
        if path in own:  # RUN/evaluations/SUITE, RUN/STAGE/evaluations/SUITE
            inside = path.parent.parent.relative_to(folder).as_posix()
            label = "this run" if inside == "." else inside
        yield Evaluation(label, str(config["suite"]), content)


def _deployment(folder: Path) -> Iterator[dict[str, str]]:
    """Exports and benchmarks: whatever scalars their files hold, by the files' own names."""
    files = [*folder.glob("**/export.json"), *folder.glob("**/benchmark*.json")]
    files += folder.glob("deploy/**/*.json")
    for path in sorted(set(files)):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue  # half-written: the next report has it
        for row in _rows(content):
            told = {key: text for key, value in _scalars(row) if (text := _text(value))}
            if told:
                yield {"file": path.relative_to(folder).as_posix(), **told}


def _rows(content: Any) -> list[Any]:
    """A list of records, alone or under the only key that holds one; else the whole."""
    if isinstance(content, list):
        return content
    lists = [
        value
        for value in (content.values() if isinstance(content, dict) else [])
        if isinstance(value, list) and value and all(isinstance(v, dict) for v in value)
    ]
    return lists[0] if len(lists) == 1 else [content]


def _scalars(row: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(row, dict):
        return
    for key, value in row.items():
        if isinstance(value, dict):
            yield from _scalars(value, f"{before}{key}.")
        elif isinstance(value, str | int | float):
            yield f"{before}{key}", value


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _json(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return content
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}): delete it and run again") from None
