"""Collect the contents of a run folder for its report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import Field

from openeupe.distillation.metrics import read_metrics
from openeupe.distillation.recipe import StageConfig
from openeupe.distillation.run_folder import Run
from openeupe.encoders.run_layout import FINISHED, StageEnding, read_ending
from openeupe.errors import InputError
from openeupe.evaluation.results import Results
from openeupe.plain_json import Saved, read_model
from openeupe.report.belonging import Belonging, comparable
from openeupe.report.deployment import Deployed, deployed

_FIX = "delete it and run openeupe quickstart again"


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


class FidelityRow(Saved):
    """R2 of an encoder's readouts at one resolution. r2: by expert, then by kind of token."""

    encoder: str
    resolution: int
    r2: dict[str, dict[str, float]]


class Quickstart(Saved):
    """The results of `openeupe quickstart`. encoders: identities. knn: accuracy in [0, 1]."""

    fidelity: list[FidelityRow]
    encoders: dict[str, str]
    knn: dict[str, float] = Field({})


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

    quickstart: the results of `openeupe quickstart`, None elsewhere.
    left_out, not_deployed: notes on results and exports that are not shown.
    """

    run: Run
    stages: list[StageStory]
    quickstart: Quickstart | None
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
    quickstart = _quickstart(folder / "results.json", belonging, left_out)
    evaluations = _evaluations(folder, results, belonging, left_out)
    tables, not_deployed = deployed(folder, belonging, exports)
    return Story(
        run,
        [_stage(run, name, left_out) for name in run.recipe.stages],
        quickstart,
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


def _quickstart(path: Path, belonging: Belonging, left_out: list[str]) -> Quickstart | None:
    if not path.is_file() or "fidelity" not in read_model(path, Saved, _FIX).model_fields_set:
        return None
    found = read_model(path, Quickstart, _FIX)
    if found.encoders != belonging.students:
        left_out.append(
            f"{path} is not shown: it is not of the run's students. Run openeupe quickstart again."
        )
        return None
    return found


def _evaluations(
    folder: Path, results: Sequence[Path], belonging: Belonging, left_out: list[str]
) -> list[Evaluation]:
    """Evaluations of the run's and further encoders, with unique labels per suite."""
    found: list[tuple[Path, Evaluation]] = []
    for path in sorted(path for path in folder.glob("**/evaluations/*") if Results.there(path)):
        one = Results.open(path)
        place = path.parent.parent  # RUN/evaluations/SUITE, RUN/STAGE/evaluations/SUITE
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
