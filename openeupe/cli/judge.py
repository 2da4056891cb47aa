"""Evaluating encoders: evaluate, compare."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import rich.table
import typer
from rich import box

from openeupe.cli.app import (
    EVALUATIONS,
    AllowCode,
    AsJson,
    Device,
    Overrides,
    app,
    console,
    error_progress,
    packaged,
    print_json,
    progress,
)
from openeupe.cli.drawn_progress import DrawnProgress
from openeupe.errors import InputError
from openeupe.files import folder_name
from openeupe.limits import BATCH, WORKERS

if TYPE_CHECKING:
    from openeupe.evaluation import Results, Table

Suite = Annotated[
    str, typer.Option(help="mini, eupe, or a suite file.", autocompletion=packaged("suite"))
]
DataRoot = Annotated[Path, typer.Option("--data", help="Folder that the suite's paths start from.")]
Precision = Annotated[
    Literal["fp32", "bf16"], typer.Option(help="Of the encoder; bf16 is autocast.")
]


@app.command()
def evaluate(
    encoder: Annotated[
        str,
        typer.Argument(help="A run, an encoder folder, a name, or untrained:NAME."),
    ],
    overrides: Overrides = None,
    suite: Suite = "mini",
    data: DataRoot = Path(),
    out: Annotated[
        Path | None,
        typer.Option(help="Results folder.  [default: ENCODER/evaluations/SUITE]"),
    ] = None,
    only: Annotated[str | None, typer.Option(help="Some of the benchmarks: knn,depth")] = None,
    device: Device = None,
    precision: Precision = "fp32",
    batch_size: Annotated[int, typer.Option(min=1, max=BATCH, help="Images a forward pass.")] = 32,
    workers: Annotated[int, typer.Option(min=1, max=WORKERS, help="Threads that read images.")] = 2,
    allow_code: AllowCode = False,
    as_json: AsJson = False,
) -> None:
    """Evaluate an encoder; run the same command again to resume or to add benchmarks.

    Suites: `mini` needs no data; `eupe` is the paper's eleven benchmarks; or a suite file of your
    own.

    Example: `openeupe evaluate runs/quickstart --suite mini`
    """
    results = _evaluate(
        encoder,
        overrides,
        suite,
        data,
        out,
        only,
        device,
        precision,
        batch_size,
        workers,
        error_progress if as_json else progress,
        allow_code,
    )
    if as_json:
        print_json(results.to_json())
        return
    console.print(_drawn(results.table()))
    for note in results.notes():
        console.print(note, soft_wrap=True, highlight=False)
    console.print(f"Saved in {results.folder}", soft_wrap=True, highlight=False)


@app.command()
def compare(
    encoders: Annotated[
        list[str], typer.Argument(help="Encoders as `evaluate` takes them, or results folders.")
    ],
    suite: Suite = "mini",
    data: DataRoot = Path(),
    device: Device = None,
    precision: Precision = "fp32",
    as_markdown: Annotated[bool, typer.Option("--markdown", help="For a README.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say which encoder is better, on which benchmarks, and whether that is noise.

    What was not evaluated yet is evaluated first. The first is compared with each of the others:
    95 % intervals and permutation tests on the same samples, corrected by Holm over the benchmarks.

    Example: `openeupe compare runs/mine efficientnet_lite0 untrained:resnet10t`
    """
    from openeupe.evaluation.compare import compare as compare_results
    from openeupe.evaluation.compare import mean_ranks, side_by_side
    from openeupe.evaluation.results import Results

    if len(encoders) < 2:
        raise InputError("compare needs two encoders or more")
    if all(Results.there(Path(encoder)) for encoder in encoders):
        _refuse_unread(suite=suite, data=data, device=device, precision=precision)
    log = error_progress if as_json else progress
    everyone = []
    for encoder in encoders:
        if Results.there(Path(encoder)):
            everyone.append(Results.open(Path(encoder)))
        else:
            everyone.append(
                _evaluate(encoder, None, suite, data, None, None, device, precision, 32, 2, log)
            )
    for first, second in itertools.combinations(range(len(encoders)), 2):
        one, other = everyone[first].folder.resolve(), everyone[second].folder.resolve()
        if encoders[first] != encoders[second] and one == other:
            raise InputError(
                f"{encoders[first]} and {encoders[second]} share the results folder {one}: "
                "evaluate one of them with another --out, and name that folder here"
            )
    ranks = mean_ranks(everyone)
    comparisons = [compare_results(everyone[0], results) for results in everyone[1:]]
    if as_json:
        encoders_json = [
            {
                "name": results.config.model,
                "mean_rank": rank,
                "benchmarks": results.to_json()["benchmarks"],
            }
            for results, rank in zip(everyone, ranks, strict=True)
        ]
        told = [comparison.to_json() for comparison in comparisons]
        print_json({"encoders": encoders_json, "comparisons": told})
        return

    def show(table: Table) -> None:
        if as_markdown:
            print(f"{table.title}\n\n{table.markdown()}\n")
        else:
            console.print(_drawn(table))

    scores = side_by_side(everyone)
    scores.rows.append(["mean rank ↓", *(f"{rank:.2f}" for rank in ranks)])
    show(scores)
    for comparison in comparisons:
        show(comparison.table())
        print(f"{comparison.summary()}\n")


def _drawn(table: Table) -> rich.table.Table:
    drawn = rich.table.Table(
        box=box.SIMPLE_HEAD, title=table.title or None, title_justify="left", pad_edge=False
    )
    for place, name in enumerate(table.header):
        drawn.add_column(name, justify="left" if place == 0 else "right", overflow="fold")
    for row in table.rows:
        drawn.add_row(*row)
    return drawn


def _refuse_unread(**given: object) -> None:
    """Refuse options that were changed though nothing is evaluated by them."""
    usual = {"suite": "mini", "data": Path(), "device": None, "precision": "fp32"}
    for name, value in given.items():
        if value != usual[name]:
            raise InputError(f"--{name} has no effect on results folders: leave it out")


def _evaluate(
    source: str,
    overrides: list[str] | None,
    suite_name: str,
    data: Path,
    out: Path | None,
    only: str | None,
    device: str | None,
    precision: Literal["fp32", "bf16"],
    batch_size: int,
    workers: int,
    log: DrawnProgress,
    allow_code: bool = False,
) -> Results:
    from openeupe.distillation.chain import load_with_chains
    from openeupe.distributed import one_device
    from openeupe.encoders.exported import check_precision
    from openeupe.evaluation.benchmark import EvaluatedEncoder
    from openeupe.evaluation.features import Features
    from openeupe.evaluation.suite import evaluate as run_suite
    from openeupe.evaluation.suite import load_suite

    suite = load_suite(suite_name, overrides)
    loaded, chains = load_with_chains(source, allow_code=allow_code)
    check_precision(loaded, precision, "--precision")
    loaded = loaded.to(one_device(device))
    folder = out or _results_folder(source, allow_code) / suite.name
    features = Features(
        loaded, precision=precision, batch_size=batch_size, workers=workers, progress=log
    )
    evaluated = EvaluatedEncoder(loaded, features, chains, folder, log)
    names = [name.strip() for name in only.split(",")] if only else None
    return run_suite(suite, evaluated, folder, root=data, source=source, only=names, progress=log)


def _results_folder(source: str, allow_code: bool) -> Path:
    """Inside a run or encoder folder; for names, `evaluations/NAME` here."""
    from openeupe.encoders import resolve

    own = resolve(source, allow_code=allow_code).results_folder()
    return own / "evaluations" if own else EVALUATIONS / folder_name(source)
