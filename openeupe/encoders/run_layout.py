"""Layout of a run folder: where finished students are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError

from openeupe.errors import InputError
from openeupe.identity import file_identity
from openeupe.limits import YAML_BYTES
from openeupe.names import Name
from openeupe.plain_json import Saved, read_model
from openeupe.plain_yaml import parse_yaml

RECIPE = "recipe.yaml"
FINISHED = "finished.json"


class _Stage(Saved):
    students: dict[Name, Any] = Field(min_length=1)


class _Recipe(Saved):
    stages: dict[Name, _Stage] = Field(min_length=1)


class StageEnding(Saved):
    """How a stage ended. dropped: step at which each diverged student was dropped.

    files: digests of the files of its students, by path inside the stage's folder.
    """

    dropped: dict[str, int] = Field({})
    broken_images: list[str] = Field([])
    files: dict[str, str]
    seed: int | None = None
    device: str = ""
    versions: dict[str, str] = Field({})


def read_ending(path: Path) -> StageEnding:
    """Read and check `finished.json`.

    Raises:
        InputError: naming the file and the field that is missing or wrong.
    """
    return read_model(path, StageEnding, "copy it back, or delete it and run distill again")


def is_run(folder: Path) -> bool:
    """Whether a folder is one that `openeupe distill` works in."""
    return (folder / RECIPE).is_file()


def check_files(stage: Path, student: str) -> None:
    """Compare the files of a finished student with what its stage wrote.

    Args:
        stage: the stage's folder.
        student: its name.

    Raises:
        InputError: naming the file that is missing or damaged, and what to do.
    """
    files = read_ending(stage / FINISHED).files
    own = {name: digest for name, digest in files.items() if Path(name).parts[:1] == (student,)}
    if not own:
        raise InputError(
            f"{stage / FINISHED} names no file of {student}: copy it back, or delete {stage} and "
            "give the command that trained it (distill, ablate) again"
        )
    for name, digest in own.items():
        file = stage / name
        if file_identity(file) != digest:
            raise InputError(
                f"{file} is damaged: it is not what the stage wrote. Copy it back, or delete "
                f"{stage} and give the command that trained it (distill, ablate) again"
            )


def check_student(folder: Path) -> None:
    """Check the digests of a student's files if its stage is finished.

    Raises:
        InputError: naming the file that is missing or damaged, and what to do.
    """
    if not folder.is_dir():
        return
    there = folder.resolve()  # in a study the stage is a link
    if (there.parent / FINISHED).is_file():
        check_files(there.parent, there.name)


class RunFolder:
    """A run folder: one folder a stage, one folder a finished student in it.

    Attributes:
        folder: the run's.
        students: names of each stage's students, in the order of the recipe.
    """

    def __init__(self, folder: Path, students: Mapping[str, tuple[str, ...]]) -> None:
        self.folder = folder
        self.students = students

    @classmethod
    def read(cls, folder: Path) -> RunFolder:
        """Read the names of a run's students. The rest of its recipe is ignored.

        Raises:
            InputError: if the recipe is missing or damaged.
        """
        path = folder / RECIPE
        try:
            with path.open("rb") as stream:
                recipe = _Recipe.model_validate(parse_yaml(stream.read(YAML_BYTES + 1)))
        except OSError as error:
            raise InputError(f"{folder} is not a run folder: {RECIPE}: {error.strerror}") from None
        except (yaml.YAMLError, ValidationError) as error:
            problem = " ".join(str(error).split())[:200]
            raise InputError(f"{path} is damaged ({problem}): copy it back") from None
        return cls(folder, {name: tuple(stage.students) for name, stage in recipe.stages.items()})

    def finished(self, stage: str) -> bool:
        """Whether the stage has ended."""
        return (self.folder / stage / FINISHED).is_file()

    def dropped(self, stage: str) -> dict[str, int]:
        """Students that diverged, with the step; 0: their first weights had diverged."""
        return read_ending(self.folder / stage / FINISHED).dropped

    def check(self, stage: str, student: str | None = None) -> None:
        """Compare the files of a stage's finished students (or of one) with what was written.

        Raises:
            InputError: naming the file that is missing or damaged, and what to do.
        """
        dropped = self.dropped(stage)
        for name in [student] if student else self.students[stage]:
            if name not in dropped:
                check_files(self.folder / stage, name)

    def student_folder(self, stage: str, student: str | None = None) -> Path:
        """Folder of a finished student of a stage; default: the stage's only one.

        Raises:
            InputError: if the stage has not ended, the student was dropped, or its files differ
                from what the stage wrote.
        """
        students = self.students[stage]
        if not self.finished(stage):
            raise InputError(f"{self.folder}: stage {stage} has not ended; run distill again")
        if student is None and len(students) > 1:
            raise InputError(
                f"{self.folder / stage} has several students: name one of {', '.join(students)}"
            )
        dropped = self.dropped(stage)
        if (student or students[0]) in dropped:
            raise InputError(
                f"{self.folder / stage}: {student or students[0]} diverged at step "
                f"{dropped[student or students[0]]} and was dropped: lower its optimizer.lr and "
                "run the stage in another folder"
            )
        self.check(stage, student or students[0])
        return self.folder / stage / (student or students[0])
