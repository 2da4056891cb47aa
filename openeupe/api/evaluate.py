"""Evaluate encoders on benchmarks, and compare them."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import torch

from openeupe.api import EVALUATIONS
from openeupe.config import Overrides, check_settings
from openeupe.config import Written as AnySuite
from openeupe.distillation.chain import load_with_chains
from openeupe.distributed import one_device
from openeupe.encoders import Encoder, resolve
from openeupe.encoders.exported import check_precision
from openeupe.encoders.resolver import Written
from openeupe.errors import InputError
from openeupe.evaluation import suite as suites
from openeupe.evaluation.benchmark import EvaluatedEncoder
from openeupe.evaluation.compare import Comparisons, compare_first
from openeupe.evaluation.config import EvaluateConfig
from openeupe.evaluation.features import Features
from openeupe.evaluation.results import Results
from openeupe.files import folder_name
from openeupe.identity import encoder_identity
from openeupe.progress import LOGGED, Progress


def evaluate(
    encoder: Written,
    suite: AnySuite = "mini",
    *,
    data: str | Path = ".",
    out: str | Path | None = None,
    overrides: Overrides | None = None,
    device: str | torch.device | None = None,
    allow_code: bool = False,
    progress: Progress = LOGGED,
    **settings: Any,
) -> Results:
    """Evaluate an encoder on the benchmarks of a suite, with intervals.

    Call it again to resume, or to add benchmarks: what is saved of this encoder and these data is
    not evaluated again.

    Example:
        >>> import openeupe
        >>> knn = {"kind": "knn", "protocol": "knn/test-v1", "domain": "image", "short": 32}
        >>> knn |= {"crop": 32, "k": [3], "data": {"layout": "scenes", "count": 12}}
        >>> suite = {"name": "small", "benchmarks": {"knn": knn}}
        >>> results = openeupe.evaluate("raw_pixels", suite)
        >>> results.benchmarks["knn"].score.name
        'top1@3'

    Args:
        encoder: any that `openeupe.load` takes.
        suite: mini (needs no data), eupe (the paper's eleven), a suite file, or its settings.
        data: folder that the suite's paths start from.
        out: folder of the results; default: `ENCODER/evaluations/SUITE`, or
            `evaluations/NAME/SUITE` of an encoder without a folder.
        overrides: settings of the suite to change, as `{"benchmarks.knn.k": [5]}`.
        device: of the encoder; default: the GPU if there is one.
        allow_code: whether an encoder of `python:` may run the function that it names.
        progress: follows the work; default: the logger `openeupe`.
        **settings: those of `EvaluateConfig`, such as `only="knn,depth"` or `precision="bf16"`.

    Returns:
        The results; `print(results.table())` shows them.

    Raises:
        InputError: in one line, if data are missing or a setting does not fit.
    """
    config = check_settings(EvaluateConfig, "evaluate", "", settings)
    loaded_suite = suites.load_suite(suite, overrides)
    loaded, chains = load_with_chains(encoder, allow_code=allow_code)
    check_precision(loaded, config.precision, "precision")
    loaded = loaded.to(one_device(device))
    folder = Path(out) if out is not None else _folder(encoder, allow_code) / loaded_suite.name
    features = Features(loaded, **config.model_dump(exclude={"only"}), progress=progress)
    return suites.evaluate(
        loaded_suite,
        EvaluatedEncoder(loaded, features, chains, folder, progress),
        folder,
        root=Path(data),
        source=_name(encoder),
        only=config.only,
        progress=progress,
    )


def compare(
    *encoders: Written | Results,
    suite: AnySuite = "mini",
    data: str | Path = ".",
    device: str | torch.device | None = None,
    progress: Progress = LOGGED,
    **settings: Any,
) -> Comparisons:
    """Compare the first encoder with each other one: which is better, and whether that is noise.

    95 % intervals and permutation tests on the same test samples, corrected by Holm over the
    benchmarks. What was not evaluated yet is evaluated first.

    Example:
        >>> import openeupe
        >>> knn = {"kind": "knn", "protocol": "knn/test-v1", "domain": "image", "short": 32}
        >>> knn |= {"crop": 32, "k": [3], "data": {"layout": "scenes", "count": 12}}
        >>> suite = {"name": "small", "benchmarks": {"knn": knn}}
        >>> compared = openeupe.compare("raw_pixels", "untrained:test_resnet", suite=suite)
        >>> [row.benchmark for row in compared.pairs[0].rows]
        ['knn']

    Args:
        encoders: two or more, as `evaluate` takes them; or results, or folders of results.
        suite: as `evaluate` takes it.
        data: as `evaluate` takes it.
        device: as `evaluate` takes it.
        progress: follows the work; default: the logger `openeupe`.
        **settings: those of `EvaluateConfig`.

    Returns:
        The results, and a comparison of the first with each other one; `print(compared.table())`
        shows them side by side.

    Raises:
        InputError: in one line, for fewer than two encoders, or results that cannot be compared.
    """
    if len(encoders) < 2:
        raise InputError("compare needs two encoders or more")
    if all(_are_results(one) for one in encoders):
        _refuse_unread({"suite": suite, "data": Path(data), "device": device, **settings})
    how = {"data": data, "device": device, "progress": progress, **settings}
    everyone = [_results(one, suite, how) for one in encoders]
    for (one, first), (other, second) in combinations(zip(encoders, everyone, strict=True), 2):
        if one is not other and one != other and _same_folder(first, second):
            raise InputError(
                f"{_name(one)} and {_name(other)} share the results folder "
                f"{first.folder.resolve()}: evaluate one of them to another folder, and name that "
                "folder here"
            )
    return compare_first(everyone)


def _are_results(encoder: Written | Results) -> bool:
    """Whether they are results, or a folder of results."""
    if isinstance(encoder, Results | Encoder):
        return isinstance(encoder, Results)
    return Results.there(Path(encoder))


def _results(encoder: Written | Results, suite: AnySuite, how: dict[str, Any]) -> Results:
    """The given results, or those of an encoder, evaluated if needed."""
    if isinstance(encoder, Results):
        return encoder
    if isinstance(encoder, Encoder) or not Results.there(Path(encoder)):
        return evaluate(encoder, suite, **how)
    return Results.open(Path(encoder))


def _same_folder(one: Results, other: Results) -> bool:
    return one.folder.resolve() == other.folder.resolve()


def _name(encoder: Written | Results) -> str:
    if isinstance(encoder, Results):
        return encoder.config.model
    return encoder.name if isinstance(encoder, Encoder) else str(encoder)


def _refuse_unread(given: dict[str, Any]) -> None:
    """Refuse options that were changed though nothing is evaluated by them."""
    usual = {"suite": "mini", "data": Path(), "device": None, **EvaluateConfig().model_dump()}
    for name, value in given.items():
        if value != usual.get(name):
            raise InputError(f"{name} has no effect on results folders: leave it out")


def _folder(encoder: Written, allow_code: bool) -> Path:
    """Inside a run or encoder folder; for names and objects, `evaluations/NAME` here."""
    if isinstance(encoder, Encoder):  # another one may have the same name
        return EVALUATIONS / f"{folder_name(encoder.name)}-{encoder_identity(encoder)[:8]}"
    own = resolve(encoder, allow_code=allow_code).results_folder()
    return own / "evaluations" if own else EVALUATIONS / folder_name(str(encoder))
