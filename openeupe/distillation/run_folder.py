"""Run folders: resolved recipe and finished stages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from openeupe.config import read_settings
from openeupe.data import DataConfig, changed
from openeupe.distillation.recipe import FORMAT, Recipe, StageConfig, dump_recipe, load_recipe
from openeupe.distillation.student import DistilledStudent, load_student
from openeupe.distributed import Processes
from openeupe.encoders import Encoder, create, load
from openeupe.encoders.run_layout import RECIPE, RunFolder, is_run
from openeupe.errors import InputError
from openeupe.files import remove_partials, write_atomically
from openeupe.seeds import derive_seed, seeded

_IMAGES = "images.json"


class Run(RunFolder):
    """A run folder with its resolved recipe.

    Finished stages are not repeated; interrupted ones resume. Layout:
    `recipe.yaml`, `STAGE/images.json` (identity of the images), `STAGE/precision.json`
    (precision at the stage's beginning), `STAGE/metrics.jsonl`,
    `STAGE/STUDENT/` (an encoder folder with its heads and statistics), `STAGE/finished.json`
    (written last).
    """

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        super().__init__(folder, {name: tuple(s.students) for name, s in recipe.stages.items()})
        self.recipe = recipe

    @classmethod
    def open(cls, folder: Path) -> Run:
        """Open an existing run folder."""
        if not is_run(folder):
            raise InputError(f"{folder} is not a run folder: it has no {RECIPE}")
        return cls(folder, _load_resolved(folder / RECIPE))

    @classmethod
    def start(cls, recipe: Recipe, folder: Path) -> Run:
        """Create the folder, or resume in it.

        Data, seed and stages that have begun must not change. Other stages may be changed, added or
        removed.
        """
        path = folder / RECIPE
        if path.exists():
            before = _load_resolved(path)
            begun = {name for name in before.stages if (folder / name).is_dir()}
            found = begun and difference(_settled(before, begun), _settled(recipe, begun))
            if found:
                raise InputError(
                    f"{folder} was begun with another recipe ({found}): name another folder "
                    "for the run, or delete this one"
                )
        folder.mkdir(parents=True, exist_ok=True)
        remove_partials(folder)
        write_atomically(path, dump_recipe(recipe))
        return cls(folder, recipe)

    def check_images(self, now: list[dict[str, object]]) -> list[str]:
        """Refuse to resume with other images (see `image_sets`) than a stage began with.

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
            except (ValueError, TypeError, KeyError, RecursionError):
                raise InputError(
                    f"{path} is damaged: copy it back, or delete {path.parent} to begin the stage "
                    "again"
                ) from None
            if found:
                raise InputError(
                    f"{self.folder / stage} was begun with other images ({found}): put the images "
                    "back as they were, or begin a run in another folder"
                )
        return unknown

    def record_images(self, stage: str, now: list[dict[str, object]]) -> None:
        """Record the identity of the images that a stage begins with."""
        path = self.folder / stage / _IMAGES
        if not path.is_file():
            write_atomically(path, json.dumps(now, indent=2))

    def student(self, stage: str, student: str | None = None) -> DistilledStudent:
        """Load a finished student of a stage; default: the stage's only one."""
        return load_student(self.student_folder(stage, student))


def load_stages(run: Run) -> dict[str, Encoder]:
    """Load `untrained` and the students of all finished stages, in eval mode.

    `untrained` is the architecture of the last of them with random weights, a function of the
    recipe's seed. The key of a stage's only student is the stage's name, else STAGE/STUDENT.
    Diverged students are left out. Empty if no stage is finished.
    """
    students = {}
    for stage, names in run.students.items():
        if not run.finished(stage):
            continue
        for name in names:
            if name not in run.dropped(stage):
                key = stage if len(names) == 1 else f"{stage}/{name}"
                students[key] = load(run.student_folder(stage, name)).eval()
    if not students:
        return {}
    last = students[list(students)[-1]]
    with seeded(derive_seed(run.recipe.seed, "untrained")):
        untrained = create(last.name, **last.args).eval()
    return {"untrained": untrained, **students}


def _load_resolved(path: Path) -> Recipe:
    """Read the recipe of a run folder. None of its code is run.

    Raises:
        InputError: if it was written by another version, or is damaged.
    """
    made = read_settings("recipe", path).get("format", 1)
    if made != FORMAT:
        raise InputError(
            f"{path} has format {made}, this version reads {FORMAT}: begin a new run; "
            f"finished students still load as {path.parent}/STAGE/STUDENT"
        )
    return load_recipe(path, allow_code=True)


def begun_settings(
    folder: Path, processes: Processes, *fields: str
) -> dict[str, dict[str, Any]] | None:
    """Settings of every stage of a run. None if it has not begun.

    Read by the first process, since the others may not see the folder; all must call.
    """
    found = None
    if processes.first and is_run(folder):
        stages = Run.open(folder).recipe.stages
        found = {name: {k: getattr(stage, k) for k in fields} for name, stage in stages.items()}
    return processes.gather_plain(found)[0]


def _settled(recipe: Recipe, stages: set[str]) -> dict[str, object]:
    """The part of a recipe that is fixed once `stages` have begun."""
    return {
        "seed": recipe.seed,
        "data": data_that_count(recipe.data),
        "stages": {k: settings_that_count(s) for k, s in recipe.stages.items() if k in stages},
    }


def settings_that_count(stage: StageConfig) -> dict[str, object]:
    """A stage's settings that change its result, as plain data. Rounding does not count.

    What students take from the stage is written out. `accumulate` counts: batch norm takes its
    statistics from each part.
    """
    settings = stage.model_dump(
        mode="json",
        exclude={"log_every", "checkpoint_every", "shard", "compile", "teacher_cache_path"},
    )
    for name, student in settings["students"].items():
        student["optimizer"] = stage.optimizer_of(name).model_dump(mode="json")
        student["pretrained"] = bool(student["pretrained"])
        del student["checkpoint_activations"]
    return settings


def data_that_count(data: DataConfig) -> dict[str, object]:
    """The data's settings as plain data, without those of reading images."""
    return data.model_dump(mode="json", exclude={"workers", "cache_images", "max_broken"})


def difference(before: object, now: object, path: str = "") -> str | None:
    """The first field in which two settings differ, with both values."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in [*before, *(k for k in now if k not in before)]:
            found = difference(before.get(key), now.get(key), f"{path}.{key}" if path else key)
            if found:
                return found
        return None
    return None if before == now else f"{path}: {before} then, {now} now"
