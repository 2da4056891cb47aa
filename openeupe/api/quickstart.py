"""Quickstart: distil real experts, evaluate the students, write the report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from openeupe.api import RUNS
from openeupe.api.report import write_report
from openeupe.config import Overrides, parsed_overrides
from openeupe.config import Written as AnySuite
from openeupe.data import FolderSource, View, open_source
from openeupe.data.registry_images import registry_images
from openeupe.datasets.classification import HeldoutFolder
from openeupe.distillation.chain import load_with_chains
from openeupe.distillation.precision import resolve_precision
from openeupe.distillation.recipe import Recipe, load_recipe
from openeupe.distillation.run import run_recipe
from openeupe.distillation.run_folder import Run, load_stages
from openeupe.distributed import one_device
from openeupe.encoders import Encoder
from openeupe.errors import InputError
from openeupe.evaluation.benchmark import Chain, EvaluatedEncoder
from openeupe.evaluation.features import Features, Precision
from openeupe.evaluation.fidelity import KINDS, Expert, Fidelity, FidelityData
from openeupe.evaluation.knn import Knn
from openeupe.evaluation.results import Results
from openeupe.evaluation.suite import Suite, evaluate, load_suite
from openeupe.progress import LOGGED, Progress
from openeupe.report.gather import REFERENCES
from openeupe.table import Table

_SUITE: AnySuite = "quickstart"


@dataclass(frozen=True)
class Quickstart:
    """A finished quickstart.

    Attributes:
        run: the run; `openeupe.load(run.folder)` is the last stage's student.
        results: of the experts, of the untrained student, and of each stage's students.
        page: the report's file.
    """

    run: Run
    results: Mapping[str, Results]
    page: Path

    def tables(self) -> list[Table]:
        """Fidelity to the experts and, for images in class folders, kNN accuracy."""
        names = list(next(iter(self.results.values())).benchmarks)
        fidelity = [name for name in names if name.startswith("fidelity-")]
        return [
            *([self._fidelity(fidelity)] if fidelity else []),
            *([self._knn()] if "knn" in names else []),
        ]

    def _fidelity(self, names: Sequence[str]) -> Table:
        experts = dict.fromkeys(name.rpartition("-")[0] for name in names)
        rows = []
        for encoder, results in self.results.items():
            for metric in results.benchmarks[names[0]].metrics:
                kinds = [
                    [results.benchmarks[f"{expert}-{kind}"].metrics[metric] for kind in KINDS]
                    for expert in experts
                ]
                cells = [" / ".join(one.text(one.value) for one in pair) for pair in kinds]
                rows.append([encoder, metric.removeprefix("r2@"), *cells])
        header = [f"{one.removeprefix('fidelity-')}\n{' / '.join(KINDS)}" for one in experts]
        return Table(
            ["encoder", "px", *header],
            rows,
            "How much of each expert's tokens is predicted on held-out images (R2)",
            [
                "R2: a ridge readout from each encoder's frozen tokens, fitted on the training "
                "images; 1 is perfect, 0 is their mean. The experts' own rows show what so few "
                'images allow. "untrained" is the student\'s architecture with random weights.'
            ],
        )

    def _knn(self) -> Table:
        rows = []
        for encoder, results in self.results.items():
            score = results.benchmarks["knn"].score
            assert score is not None  # every encoder has class tokens
            interval = f"{score.text(score.low)} to {score.text(score.high)}"
            rows.append([encoder, score.text(score.value), interval])
        header = ["encoder", "kNN accuracy %", "95 % interval"]
        return Table(header, rows, "Class of the held-out images")


def quickstart(
    images: str | Path | None = None,
    *,
    run: str | Path = RUNS / "quickstart",
    overrides: Overrides | None = None,
    device: str | torch.device | None = None,
    progress: Progress = LOGGED,
) -> Quickstart:
    """Distil real experts into a small student, evaluate it, write the report.

    The packaged recipe `quickstart` is carried out, its experts and students are evaluated on the
    packaged suite `quickstart`, and the run's report is written. Call it again to resume: what is
    trained and evaluated is not done again.

    Example:
        >>> import openeupe
        >>> done = openeupe.quickstart("photos", run="runs/mine")  # doctest: +SKIP
        >>> print(done.tables()[0])  # doctest: +SKIP
        >>> openeupe.load(done.run.folder).name  # doctest: +SKIP
        'resnet10t'

    Args:
        images: a folder of images; default: 33 example images of the package registry. If they are
            in one sub-folder per class, kNN accuracy is measured as well.
        run: the run folder.
        overrides: settings of the recipe to change, as `distill` takes them.
        device: of training and evaluation; default: the GPU if there is one.
        progress: follows the work; default: the logger `openeupe`.

    Returns:
        The run, results and the report's file.

    Raises:
        InputError: in one line, for a missing folder or a mistake in the overrides.
    """
    folder, on = Path(run), one_device(device)
    recipe = _recipe(images, overrides)
    source = recipe.data.sources[0]
    parts = [open_source(source, "train"), open_source(source, "heldout")]
    progress.message(
        f"{len(parts[0])} images to learn from, {len(parts[1])} held out: {source.path}"
    )
    classes = (isinstance(parts[0], FolderSource) and parts[0].classes) or []
    suite = _suite(recipe, on, with_classes=len(classes) > 1)
    done = run_recipe(recipe, folder, device=on, progress=progress)
    results = dict(_evaluated(done, suite, on, progress))
    page = write_report(folder, device=on, progress=progress)
    return Quickstart(done, results, page)


def _recipe(images: str | Path | None, overrides: Overrides | None) -> Recipe:
    folder = registry_images() if images is None else Path(images)
    if not folder.is_dir():
        raise InputError(f"images: {folder} is no folder")
    path = ("data.sources.0.path", str(folder.resolve()))
    return load_recipe("quickstart", dict([path, *parsed_overrides(overrides)]))


def _suite(recipe: Recipe, device: torch.device, *, with_classes: bool) -> Suite:
    """The packaged suite with the recipe's images, experts and resolutions."""
    suite, stages = load_suite(_SUITE), list(recipe.stages.values())
    source, last = recipe.data.sources[0], stages[-1]
    resolution = next(iter(last.students.values())).resolution
    half = resolve_precision(stages[0].teacher_precision, device) != "fp32"
    experts = {
        name: Expert(encoder=one.encoder, resolution=one.resolution[0], args=one.args)
        for name, one in stages[0].teachers.items()
        if one.pretrained  # random ones are not worth predicting
    }
    fitted = {}
    for name, benchmark in suite.benchmarks.items():
        changes: dict[str, object] = {}
        if isinstance(benchmark, Fidelity):
            if not experts:
                continue
            changes = {
                "experts": experts,
                "expert_precision": "bf16" if half else "fp32",
                "resolution": resolution,
                "crop": last.largest_resolution,
            }
        elif isinstance(benchmark, Knn):
            if not with_classes:
                continue
            changes = {"crop": resolution[0], "short": round(resolution[0] * 256 / 224)}
        if isinstance(benchmark, Fidelity | Knn) and isinstance(benchmark.data, HeldoutFolder):
            place = {"path": Path(source.path), "heldout": source.heldout}
            changes["data"] = benchmark.data.model_copy(update=place)
        fitted[name] = benchmark.model_copy(update=changes)
    return suite.model_copy(update={"benchmarks": fitted})


def _evaluated(
    run: Run, suite: Suite, device: torch.device, progress: Progress
) -> Iterator[tuple[str, Results]]:
    """Results of the experts, the untrained student and each stage's students, by name."""
    data = {name: benchmark.open(Path()) for name, benchmark in suite.benchmarks.items()}
    views: dict[tuple[str, View], Tensor] = {}  # decoded once for all encoders

    def evaluated(
        name: str, encoder: Encoder, place: Path, precision: Precision, heads: Mapping[str, Chain]
    ) -> tuple[str, Results]:
        progress.message(f"evaluating {name}")
        features = Features(encoder.to(device), precision=precision, progress=progress, views=views)
        folder = place / "evaluations" / suite.name
        one = EvaluatedEncoder(encoder, features, heads, folder, progress)
        return name, evaluate(
            suite, one, folder, root=Path(), source=name, progress=progress, opened=data
        )

    references = run.folder / REFERENCES
    for benchmark, opened in zip(suite.benchmarks.values(), data.values(), strict=True):
        if isinstance(benchmark, Fidelity) and isinstance(opened, FidelityData):
            for name, expert in opened.experts.items():
                # In their training precision: these experts take most of the time on a CPU.
                yield evaluated(name, expert, references / name, benchmark.expert_precision, {})
    for name, encoder in load_stages(run).items():
        if name == "untrained":
            yield evaluated(name, encoder, references / name, "fp32", {})
        else:
            place = run.folder / name
            student, chains = load_with_chains(str(place))
            yield evaluated(name, student, place, "fp32", chains)
