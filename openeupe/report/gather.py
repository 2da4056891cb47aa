"""Collect the contents of a run folder for its report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from openeupe.distillation.metrics import read_metrics
from openeupe.distillation.recipe import StageConfig
from openeupe.distillation.run_folder import Run
from openeupe.encoders.run_layout import FINISHED, StageEnding, read_ending
from openeupe.errors import InputError
from openeupe.evaluation.results import Results
from openeupe.report.belonging import Belonging, comparable
from openeupe.report.deployment import Deployed, deployed

REFERENCES = "references"  # RUN/references/NAME/evaluations: encoders to compare the run's with


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
    """A stage so far. done: steps logged. ending: None until the stage ends."""

    name: str
    config: StageConfig
    done: int
    curves: list[Curve]
    ending: StageEnding | None

    @property
    def finished(self) -> bool:
        """Whether the stage has ended."""
        return self.ending is not None

    @property
    def state(self) -> str:
        """Progress as text."""
        if self.finished:
            return "finished"
        return f"at step {self.done} of {self.config.steps}" if self.done else "not begun"


@dataclass(frozen=True)
class Evaluation:
    """Results of `openeupe evaluate`. label: of the encoder in charts, unique in a suite."""

    label: str
    results: Results

    @property
    def suite(self) -> str:
        """The suite's name."""
        return self.results.config.suite


@dataclass(frozen=True)
class Story:
    """Everything of a run that the report shows, except pictures.

    left_out, not_deployed: notes on results and exports that are not shown.
    """

    run: Run
    stages: list[StageStory]
    evaluations: list[Evaluation]
    left_out: list[str]
    deployment: list[Deployed]
    not_deployed: list[str]

    @property
    def unfinished(self) -> list[StageStory]:
        """The stages that have not ended."""
        return [stage for stage in self.stages if not stage.finished]


def gather(folder: Path, results: Sequence[Path] = (), exports: Path | None = None) -> Story:
    """Read a run folder; results of other weights are left out.

    Args:
        results: further results folders of `openeupe evaluate`, shown with the run's own.
        exports: folder of exported folders, next to those inside the run.

    Raises:
        InputError: if it is no run folder, or a file of it is damaged.
    """
    run = Run.open(folder)
    belonging, left_out = Belonging(run), list[str]()
    evaluations = _evaluations(run, results, belonging, left_out)
    tables, not_deployed = deployed(folder, belonging, exports)
    return Story(
        run,
        [_stage(run, name, left_out) for name in run.recipe.stages],
        evaluations,
        left_out,
        tables,
        not_deployed,
    )


def _stage(run: Run, name: str, left_out: list[str]) -> StageStory:
    folder, config = run.folder / name, run.recipe.stages[name]
    path = folder / "metrics.jsonl"
    records = read_metrics(path, left_out.append) if path.is_file() else []
    ending = read_ending(folder / FINISHED) if run.finished(name) else None
    done = int(records[-1]["step"]) if records else 0
    return StageStory(name, config, done, _curves(config, records), ending)


def _curves(config: StageConfig, records: Sequence[Mapping[str, Any]]) -> list[Curve]:
    """Losses as the trainer names them: `loss/[STUDENT/]TEACHER/KIND`."""
    only = next(iter(config.students))
    curves = []
    for key in dict.fromkeys(key for r in records for key in r if key.startswith("loss/")):
        parts = key.split("/")[1:]
        if len(parts) not in (2, 3):
            raise InputError(f"metrics.jsonl is damaged ({key!r}): copy it again, or remove it")
        *student, teacher, kind = parts
        there = [r for r in records if key in r]
        steps, losses = [r["step"] for r in there], [r[key] for r in there]
        curves.append(Curve(student[0] if student else only, teacher, kind, steps, losses))
    return curves


def _evaluations(
    run: Run, results: Sequence[Path], belonging: Belonging, left_out: list[str]
) -> list[Evaluation]:
    """Evaluations of references, the run's and further encoders, with unique labels per suite."""
    found: list[tuple[Path, Evaluation]] = []
    folder, order = run.folder, [REFERENCES, *run.students]
    there = [path for path in folder.glob("**/evaluations/*") if Results.there(path)]

    def rank(path: Path) -> tuple[int, Path]:
        """References first, then stages in their order, then what is in no stage."""
        top = path.relative_to(folder).parts[0]
        return order.index(top) if top in order else len(order), path

    for path in sorted(there, key=rank):
        one = Results.open(path)
        place = path.parent.parent  # RUN/evaluations/SUITE, RUN/STAGE/evaluations/SUITE
        if place.parent == folder / REFERENCES:
            found.append((path, Evaluation(place.name, one)))
            continue
        if not belonging.evaluated(place, one):
            left_out.append(
                f"{path} is not shown: it is not of the encoder that is there now. Run openeupe "
                f"evaluate {place} again."
            )
            continue
        label = "this run" if place == folder else place.relative_to(folder).as_posix()
        found.append((path, Evaluation(label, one)))
    for path in results:
        one = Results.open(path)
        found.append((path, Evaluation(one.config.model, one)))
    uses = Counter((each.suite, each.label) for _, each in found)
    named = [
        replace(each, label=f"{each.label} ({path})") if uses[each.suite, each.label] > 1 else each
        for path, each in found
    ]
    return list(_side_by_side(named, left_out))


def _side_by_side(evaluations: list[Evaluation], left_out: list[str]) -> Iterator[Evaluation]:
    for suite in dict.fromkeys(one.suite for one in evaluations):
        same = [one for one in evaluations if one.suite == suite]
        everyone, notes = comparable([e.results for e in same], [e.label for e in same])
        left_out += notes
        yield from (replace(e, results=one) for e, one in zip(same, everyone, strict=True))
