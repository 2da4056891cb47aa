"""Run studies: recipes x seeds, evaluated and compared."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from openeupe.ablation.report import report, tables_file
from openeupe.ablation.running import Place, check, run_study, warm_up
from openeupe.ablation.study import LoadedStudy, load_study
from openeupe.ablation.study_results import StudyResults
from openeupe.api import STUDIES
from openeupe.config import Overrides
from openeupe.distributed import named_device
from openeupe.progress import LOGGED, Progress


@dataclass(frozen=True)
class Ablation:
    """The results of a study so far.

    Attributes:
        folder: of everything.
        content: what `results-NAME.json` contains: arms, costs, tables of paired comparisons.
        failed: a line for each piece of work that failed; the same call continues with the rest.
    """

    folder: Path
    content: dict[str, object]
    failed: list[str]

    def markdown(self) -> str:
        """The tables of the study, as `tables-NAME.md` contains them."""
        return tables_file(self.folder, str(self.content["study"])).read_text(encoding="utf-8")

    def to_json(self) -> dict[str, object]:
        """As `openeupe ablate --json` prints it."""
        return self.content


def ablate(
    study: str | Path,
    *,
    overrides: Overrides | None = None,
    out: str | Path | None = None,
    data: str | Path = ".",
    jobs: int = 1,
    device: str | None = None,
    allow_code: bool = False,
    progress: Progress = LOGGED,
) -> Ablation:
    """Train and evaluate what a study lacks, and compare its arms. Call it again to resume.

    Stages that several recipes share are trained once.

    Example:
        >>> import openeupe
        >>> done = openeupe.ablate("study.yaml", out="studies/pixels")
        >>> done.failed
        []
        >>> print(done.markdown().splitlines()[0])
        # pixels

    Args:
        study: a study file, or the name of a packaged one.
        overrides: settings of the study to change, as `{"seeds": [0, 1, 2]}`.
        out: folder for everything; default: `studies/NAME`.
        data: folder that the paths of the recipes and of the suite start from.
        jobs: stages and evaluations at a time, each in a process of its own.
        device: of all of them; default: the GPU if there is one.
        allow_code: whether recipes and arms may run the functions that `python:` encoders name.
        progress: follows the work; default: the logger `openeupe`.

    Returns:
        The results so far.

    Raises:
        InputError: in one line, for a mistake in the study, before any work.
    """
    named_device(device)  # refused now rather than in each process
    loaded = load_study(study, overrides, allow_code=allow_code)
    place = _place(loaded, out, data, device)
    _tell_one_seed(loaded, progress)
    if jobs > 1:
        warm_up()
    check(loaded, place)
    failed = run_study(loaded, place, jobs, progress)
    return Ablation(place.out, report(StudyResults(loaded, place)), failed)


def read_ablation(
    study: str | Path,
    *,
    overrides: Overrides | None = None,
    out: str | Path | None = None,
    data: str | Path = ".",
    allow_code: bool = False,
    progress: Progress = LOGGED,
) -> Ablation:
    """The results of a study as far as they are there. Nothing is trained or evaluated.

    Args:
        study: as `ablate` takes it, and the other arguments too.
    """
    loaded = load_study(study, overrides, allow_code=allow_code)
    place = _place(loaded, out, data, None)
    _tell_one_seed(loaded, progress)
    return Ablation(place.out, report(StudyResults(loaded, place)), [])


def _tell_one_seed(loaded: LoadedStudy, progress: Progress) -> None:
    if len(loaded.study.seeds) == 1 and loaded.study.tables:
        progress.message(
            "seeds: with one seed the noise of training is unknown, and no table gives a verdict; "
            "seeds=[0,1,2] gives one"
        )


def _place(
    loaded: LoadedStudy, out: str | Path | None, data: str | Path, device: str | None
) -> Place:
    folder = Path(out) if out is not None else STUDIES / loaded.study.name
    return Place(folder, Path(data), device)
