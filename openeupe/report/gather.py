"""What a run folder holds, finished or not, in the order in which the page tells it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openeupe.distill.metrics import read_metrics
from openeupe.distill.recipe import StageConfig
from openeupe.distill.run import Run
from openeupe.distill.saved import read_ending
from openeupe.errors import InputError
from openeupe.evaluate.results import Results
from openeupe.plain_json import read_json
from openeupe.report.deployment import Deployed, deployed


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
        """How far it is, in words."""
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

    quickstart: the tables of `openeupe quickstart`, empty elsewhere.
    """

    run: Run
    stages: list[StageStory]
    quickstart: dict[str, Any]
    evaluations: list[Evaluation]
    deployment: list[Deployed]

    @property
    def unfinished(self) -> list[StageStory]:
        """The stages that have not ended."""
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
        deployed(folder),
    )


def _stage(run: Run, name: str) -> StageStory:
    folder, config = run.folder / name, run.recipe.stages[name]
    path = folder / "metrics.jsonl"
    records = read_metrics(path) if path.is_file() else []
    finished = run.finished(name)
    about = read_ending(folder / "finished.json") if finished else {}
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
        yield Evaluation(label, str(config.get("suite", "")), content)


def _json(path: Path) -> dict[str, Any]:
    content = read_json(path, "delete it and run again")
    if not isinstance(content, dict):
        raise InputError(f"{path} is damaged (it is no mapping): delete it and run again")
    return content
