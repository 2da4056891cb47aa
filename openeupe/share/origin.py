"""Origin of an encoder: recipe, data, teachers and results."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from openeupe.distillation.chain import chains
from openeupe.distillation.check import start_of
from openeupe.distillation.recipe import Recipe, dump_recipe
from openeupe.distillation.run_folder import Run
from openeupe.distillation.saved import StudentInfo, read_info
from openeupe.distillation.student import DISTILLATION
from openeupe.encoders import Encoder, resolve
from openeupe.encoders.export_layout import ABOUT
from openeupe.encoders.licences import Licence, licence_of
from openeupe.encoders.resolver import Written, earlier_stage, looks_like_path
from openeupe.encoders.run_layout import is_run
from openeupe.encoders.sources import Export, Given, Published, RunStudent, Untrained
from openeupe.errors import InputError
from openeupe.evaluation.benchmark import identify
from openeupe.evaluation.records import EncoderIdentity
from openeupe.evaluation.results import RESULTS, Results
from openeupe.files import folder_name, read_mapping

_NAMED = "as the export it was taken from states: read it before you publish"
_UNKNOWN = Licence("unknown", "its teachers are not known: ask its author")


@dataclass
class Origin:
    """Where an encoder comes from.

    experts: names of the encoders at the beginning of the chain (frozen teachers, and published
        weights that a student started from), with their licences.
    info: `distillation.json` of the stage that finished it; None if it was not distilled here.
    recipe: of the run, if the encoder is in a run folder.
    resolutions: pixels at which the last stage trained it, where the recipe is known.
    results: of `openeupe evaluate`, a suite each.
    """

    experts: dict[str, Licence] = field(default_factory=dict)
    info: StudentInfo | None = None
    recipe: Recipe | None = None
    resolutions: tuple[int, ...] = ()
    results: list[Results] = field(default_factory=list)

    @property
    def recipe_yaml(self) -> str:
        """The resolved recipe, with paths shortened to their last name."""
        assert self.recipe is not None
        recipe = for_others(yaml.safe_load(dump_recipe(self.recipe)))
        return yaml.safe_dump(recipe, sort_keys=False, width=100)


def origin(source: Written, encoder: Encoder, evaluations: Path | None = None) -> Origin:
    """Collect the origin of `source` from the files around it.

    Args:
        source: any that `openeupe.load` takes.
        encoder: loaded from it. Only results of the same weights and heads are used.
        evaluations: folder that may hold results of an encoder without a folder of its own, as
            `NAME/SUITE`; None: there are none.
    """
    found = Origin()
    resolved = resolve(source, allow_code=True)  # nothing is run here
    if isinstance(resolved, Given):
        return Origin({encoder.name: _UNKNOWN})
    own = resolved.results_folder()
    places = {own / "evaluations"} if own else set()
    if own is None and evaluations is not None:
        places = {evaluations / folder_name(resolved.text)}
    student = resolved.folder()
    if student is None:
        _add_outside(found.experts, resolved.text, resolved.text)
        found.results = _results(places, lambda: identify(encoder, {}))
        return found
    found.info = _info(student)
    if found.info:
        found.recipe = _recipe_of(student, found.info)
        _add_experts(found.experts, student, found.info, found.recipe)
    if found.recipe:
        config = found.recipe.stages[student.parent.name].students[student.name]
        found.resolutions = tuple(config.resolution)
    if found.recipe is None and (not found.info or (student / "README.md").is_file()):
        # Only its card names the weights that it started from.
        found.experts.setdefault(student.resolve().name, licence_of(str(student)))
    places |= {student / "evaluations", student.parent / "evaluations"}
    found.results = _results(places, lambda: identify(encoder, chains(student)))
    return found


def _recipe_of(student: Path, info: StudentInfo) -> Recipe | None:
    """The recipe of a student's run, if the run folder exists."""
    folder = student.parent.parent
    if not is_run(folder):
        return None
    recipe = Run.open(folder).recipe
    stage = recipe.stages.get(student.parent.name)
    place = (info.run, info.stage)
    made = stage and student.name in stage.students and place == (recipe.name, student.parent.name)
    return recipe if made else None


def _info(student: Path) -> StudentInfo | None:
    path = student / DISTILLATION
    return read_info(path) if path.is_file() else None


def _add_experts(
    experts: dict[str, Licence], student: Path, info: StudentInfo, recipe: Recipe | None
) -> None:
    """Add the experts behind a student, through all stages of its run."""
    before = [teacher.encoder for teacher in info.teachers.values()]
    if recipe is not None:
        start = start_of(recipe.stages[student.parent.name].students[student.name])
        before += [start] if start else []
    elif info.start:
        before.append(info.start.encoder)
    for encoder in before:
        reference = earlier_stage(encoder)
        if reference is None:
            _add_outside(experts, encoder, Path(encoder).name)
            continue
        stage, name = recipe.resolve(reference) if recipe is not None else ("", "")
        earlier = student.parent.parent / stage / name
        made = _info(earlier) if recipe is not None else None
        if made:
            _add_experts(experts, earlier, made, recipe)
        else:
            experts.setdefault(encoder, _UNKNOWN)


def _add_outside(experts: dict[str, Licence], encoder: str, name: str) -> None:
    """Add an encoder from outside of this run, or its experts."""
    try:
        source = resolve(encoder, allow_code=True)  # nothing is run here
        student = source.folder() if isinstance(source, RunStudent) else None
    except InputError:  # a path that no longer exists
        source, student = None, None
    if isinstance(source, Untrained):
        return
    if student is not None and (made := _info(student)):
        _add_experts(experts, student, made, _recipe_of(student, made))
    elif isinstance(source, Export) and isinstance(
        licences := read_mapping(source.path / ABOUT).get("licences"), dict
    ):
        for of, licence in licences.items():
            experts.setdefault(of, Licence(str(licence), _NAMED))
    else:
        experts.setdefault(encoder if isinstance(source, Published) else name, licence_of(encoder))


def for_others(settings: object) -> object:
    """Replace paths in settings by their last name."""
    if isinstance(settings, list):
        return [for_others(value) for value in settings]
    if isinstance(settings, str) and Path(settings).is_absolute():
        return Path(settings).name
    if not isinstance(settings, dict):
        return settings
    # An encoder's name alone could be that of a published one.
    return {
        key: f"local/{Path(value).name}"
        if key == "encoder" and isinstance(value, str) and looks_like_path(value)
        else for_others(value)
        for key, value in settings.items()
    }  # fmt: skip


def _results(folders: Iterable[Path], identity: Callable[[], EncoderIdentity]) -> list[Results]:
    """Results in `folders` that belong to an encoder's identity."""
    paths = sorted({path.resolve() for f in folders for path in f.glob(f"*/{RESULTS}")})
    found = [Results.read(path) for path in paths]
    if not found:
        return []
    own = identity()
    return [results for results in found if results.benchmarks and results.is_of(own)]
