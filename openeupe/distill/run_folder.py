"""A run folder: the recipe that it keeps, and what its stages have finished."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openeupe.data import changed
from openeupe.distill.recipe import (
    Recipe,
    data_that_count,
    dump_recipe,
    load_recipe,
    settings_that_count,
)
from openeupe.distill.saved import read_ending
from openeupe.distill.student import DistilledStudent, load_student
from openeupe.errors import InputError
from openeupe.files import remove_partials, write_atomically
from openeupe.identity import file_identity

RECIPE = "recipe.yaml"
FINISHED = "finished.json"
_IMAGES = "images.json"


@dataclass
class Run:
    """A run folder: the resolved recipe, and one folder a stage.

    What is finished is not done again; what was cut off resumes. Layout:
    `recipe.yaml`, `STAGE/images.json` (what identifies the images), `STAGE/precision.json` (what
    `auto` meant where the stage began), `STAGE/metrics.jsonl`,
    `STAGE/STUDENT/` (an encoder folder with its heads and statistics), `STAGE/finished.json`
    (written last).
    """

    folder: Path
    recipe: Recipe

    @classmethod
    def open(cls, folder: Path) -> Run:
        """Open an existing run folder."""
        if not (folder / RECIPE).is_file():
            raise InputError(f"{folder} is not a run folder: it has no {RECIPE}")
        return cls(folder, load_recipe(folder / RECIPE))

    @classmethod
    def start(cls, recipe: Recipe, folder: Path) -> Run:
        """Make the folder, or go on in it.

        What has begun must stay as it was: the data, the seed, and every stage with a folder.
        Stages that have not begun may be changed, added or removed.
        """
        path = folder / RECIPE
        if path.exists():
            before = load_recipe(path)
            begun = {name for name in before.stages if (folder / name).is_dir()}
            found = begun and difference(_settled(before, begun), _settled(recipe, begun))
            if found:
                raise InputError(
                    f"{folder} was begun with another recipe ({found}): name another folder "
                    "with --run, or delete this one"
                )
        folder.mkdir(parents=True, exist_ok=True)
        remove_partials(folder)
        write_atomically(path, dump_recipe(recipe))
        return cls(folder, recipe)

    def check_images(self, now: list[dict[str, Any]]) -> list[str]:
        """Refuse to go on with other images (see `image_sets`) than a stage was begun with.

        Batches are a function of the step and of the set of images, so that even one image more
        would change all of them. Returns the begun stages that have no record to compare.
        """
        unknown = []
        for stage in self.recipe.stages:
            path = self.folder / stage / _IMAGES
            if not path.is_file():
                unknown += [stage] if (self.folder / stage / "checkpoints").is_dir() else []
                continue
            try:
                found = changed(json.loads(path.read_text(encoding="utf-8")), now)
            except (ValueError, TypeError, KeyError):
                raise InputError(
                    f"{path} is damaged: copy it back, or delete {path.parent} to begin the stage "
                    "anew"
                ) from None
            if found:
                raise InputError(
                    f"{self.folder / stage} was begun with other images ({found}): put the images "
                    "back as they were, or begin another run with --run"
                )
        return unknown

    def record_images(self, stage: str, now: list[dict[str, Any]]) -> None:
        """Keep what identifies the images that a stage begins with, unless it is recorded."""
        path = self.folder / stage / _IMAGES
        if not path.is_file():
            write_atomically(path, json.dumps(now, indent=2))

    def finished(self, stage: str) -> bool:
        """Whether the stage has ended."""
        return (self.folder / stage / FINISHED).is_file()

    def dropped(self, stage: str) -> dict[str, int]:
        """Students that diverged, with the step; step 0: what they come from had diverged."""
        dropped: dict[str, int] = self._ending(stage).get("dropped", {})
        return dropped

    def check(self, stage: str, student: str | None = None) -> None:
        """Compare the files of a stage's finished students (or of one) with what was written.

        Raises:
            InputError: naming the file that is missing or damaged, and what to do.
        """
        if not check_files(self.folder / stage, student):
            # By a version that kept no digests: what can be opened is whole.
            dropped = self.dropped(stage)
            for name in [student] if student else self.recipe.stages[stage].students:
                if name not in dropped:
                    load_student(self.folder / stage / name)

    def _ending(self, stage: str) -> dict[str, Any]:
        return read_ending(self.folder / stage / FINISHED)

    def student(self, stage: str, student: str | None = None) -> DistilledStudent:
        """A finished student of a stage, by default the stage's only one."""
        return load_student(self.student_folder(stage, student))

    def student_folder(self, stage: str, student: str | None = None) -> Path:
        """Where a finished student of a stage lies, by default the stage's only one."""
        students = list(self.recipe.stages[stage].students)
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


def check_files(stage: Path, student: str | None = None) -> bool:
    """Compare the files of finished students with what their stage wrote.

    Args:
        stage: the stage's folder.
        student: its name; None: all of them.

    Returns whether the stage kept digests to compare with.

    Raises:
        InputError: naming the file that is missing or damaged, and what to do.
    """
    written: dict[str, str] | None = read_ending(stage / FINISHED).get("files")
    for name, digest in (written or {}).items():
        file = stage / name
        if student in (None, file.parent.name) and file_identity(file) != digest:
            raise InputError(
                f"{file} is damaged: it is not what the stage wrote. Copy it back, or delete "
                f"{stage} and give the command that trained it (distill, ablate) again"
            )
    return written is not None


def check_student(folder: Path) -> None:
    """`check_files` of the one student in `folder`, where a finished stage lies around it.

    Raises:
        InputError: naming the file that is missing or damaged, and what to do.
    """
    if not folder.is_dir():
        return
    there = folder.resolve()  # of a study: the stage itself, not a link to it
    if (there.parent / FINISHED).is_file():
        check_files(there.parent, there.name)


def _settled(recipe: Recipe, stages: set[str]) -> dict[str, Any]:
    """The part of a recipe that may not change once `stages` have begun."""
    return {
        "seed": recipe.seed,
        "data": data_that_count(recipe.data),
        "stages": {k: settings_that_count(s) for k, s in recipe.stages.items() if k in stages},
    }


def difference(before: Any, now: Any, path: str = "") -> str | None:
    """The first field in which two groups of settings differ, with both values."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in [*before, *(k for k in now if k not in before)]:
            found = difference(before.get(key), now.get(key), f"{path}.{key}" if path else key)
            if found:
                return found
        return None
    return None if before == now else f"{path}: {before} then, {now} now"
