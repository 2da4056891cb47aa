"""Predict experts' class tokens through the adapter heads of all stages."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from openeupe.distillation.adapter_heads import AdapterHead
from openeupe.distillation.encoder_settings import TeacherConfig
from openeupe.distillation.run_folder import Run
from openeupe.distillation.saved import StudentInfo, TeacherInfo
from openeupe.distillation.standardize import Standardizer
from openeupe.distillation.student import DISTILLATION, load_student
from openeupe.encoders import Encoder, is_published, resolve
from openeupe.encoders.resolver import Written, earlier_stage
from openeupe.encoders.run_layout import check_student, is_run
from openeupe.encoders.sources import RunStudent
from openeupe.errors import InputError
from openeupe.identity import facts_identity, tensors_identity


class HeadChain:
    """Predicts an expert's class tokens `[B, De]` from a student's `[B, Dc]`.

    Each step is a class head and the inverse of the teacher's standardization.
    """

    def __init__(self, steps: Sequence[tuple[AdapterHead, Standardizer]]) -> None:
        self.steps = list(steps)

    @torch.no_grad()
    def __call__(self, cls: Tensor) -> Tensor:
        for head, statistics in self.steps:
            cls = head(cls.float()) * statistics.cls_std + statistics.cls_mean
        return cls

    @property
    def identity(self) -> str:
        """Identity of all heads and statistics of the chain."""
        return facts_identity(
            *(tensors_identity(part.state_dict()) for step in self.steps for part in step)
        )


def load_with_chains(
    source: Written, *, allow_code: bool = False
) -> tuple[Encoder, dict[str, HeadChain]]:
    """Load an encoder with the chains of heads to its experts.

    The keys are the experts' encoder names; only students have chains.
    """
    resolved = resolve(source, allow_code=allow_code)
    folder = resolved.folder()
    return resolved.load(), {} if folder is None else chains(folder)


def chains(student: Path) -> dict[str, HeadChain]:
    """Chains from a finished student to its experts, by encoder name.

    A teacher that is a student of an earlier stage or of another run is replaced by its own
    teachers, if the run folder is there. Of several chains to one expert the shortest is used.
    Teachers that were not pretrained, come from an encoder folder, or have another class token
    than their default are left out.

    Args:
        student: the folder of a student (`RUN/STAGE/STUDENT`); one that was not distilled has no
            chains.
    """
    if not (student / DISTILLATION).is_file():
        return {}
    found: dict[str, HeadChain] = {}
    ahead: deque[tuple[Path, list[tuple[AdapterHead, Standardizer]]]] = deque([(student, [])])
    while ahead:  # breadth first: the shortest chain to an expert comes first
        folder, before = ahead.popleft()
        check_student(folder)
        here, run = load_student(folder), _run_around(folder)
        for teacher, teacher_info in here.info.teachers.items():
            steps = [*before, (here.heads[teacher].cls, here.statistics[teacher])]
            encoder = teacher_info.encoder
            if earlier := earlier_stage(encoder):
                if run is not None:
                    stage, name = run.recipe.resolve(earlier)
                    ahead.append((run.folder / stage / name, steps))
            elif is_published(encoder):
                if _is_expert(run, here.info, teacher):
                    found.setdefault(encoder, HeadChain(steps))
            elif (student_of_run := _run_student(encoder)) is not None:
                ahead.append((student_of_run, steps))
    return found


def _run_around(student: Path) -> Run | None:
    folder = student.parent.parent
    return Run.open(folder) if is_run(folder) else None


def _run_student(encoder: str) -> Path | None:
    """Folder of a teacher that is another run's student, if it exists."""
    try:
        source = resolve(encoder)
        folder = source.folder() if isinstance(source, RunStudent) else None
        return folder if folder and (folder / DISTILLATION).is_file() else None
    except InputError:
        return None


def _is_expert(run: Run | None, info: StudentInfo, teacher: str) -> bool:
    """Whether a teacher had its published weights and its default class token."""
    made: TeacherInfo | TeacherConfig = info.teachers[teacher]
    if made.pretrained is None:
        if run is None or info.stage not in run.recipe.stages:
            return True  # nothing contradicts it
        made = run.recipe.stages[info.stage].teachers[teacher]
    return bool(made.pretrained) and "class_token" not in made.args
