"""Judging encoders: evaluate, compare."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich import box
from rich.table import Table

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
    """Judge an encoder; run the same command again to resume or to add benchmarks.

    Suites: `mini` needs no data; `eupe` is the paper's eleven benchmarks; or a suite file of your
    own.

    Example: `openeupe evaluate runs/quickstart --suite mini`
    """
    from openeupe.evaluation import tables

    content, folder = _evaluate(
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
        print_json(content)
        return
    benchmarks = list(content["benchmarks"])
    console.print(_table(*tables.one(content, benchmarks), encoder))
    for note in tables.notes(content, benchmarks):
        console.print(note, soft_wrap=True, highlight=False)
    console.print(f"Kept in {folder}", soft_wrap=True, highlight=False)


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
    from openeupe.evaluation import tables
    from openeupe.evaluation.compare import compare as compare_results
    from openeupe.evaluation.compare import mean_ranks
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
            _, folder = _evaluate(
                encoder, None, suite, data, None, None, device, precision, 32, 2, log
            )
            everyone.append(Results.open(folder))
    for first, second in itertools.combinations(range(len(encoders)), 2):
        one, other = everyone[first].folder.resolve(), everyone[second].folder.resolve()
        if encoders[first] != encoders[second] and one == other:
            raise InputError(
                f"{encoders[first]} and {encoders[second]} share the results folder {one}: "
                "evaluate one of them with another --out, and name that folder here"
            )
    contents = [results.read() for results in everyone]
    benchmarks = list(dict.fromkeys(name for content in contents for name in content["benchmarks"]))
    names = [content["config"]["model"] for content in contents]
    ranks = mean_ranks(everyone, benchmarks)
    pairs = [compare_results(everyone[0], results, benchmarks) for results in everyone[1:]]
    if as_json:
        print_json(
            {
                "encoders": [
                    {"name": name, "mean_rank": rank, "benchmarks": content["benchmarks"]}
                    for name, rank, content in zip(names, ranks, contents, strict=True)
                ],
                "comparisons": [
                    {
                        "first": names[0],
                        "second": name,
                        "benchmarks": [
                            {**dataclasses.asdict(c), "verdict": c.verdict} for c in compared
                        ],
                    }
                    for name, compared in zip(names[1:], pairs, strict=True)
                ],
            }
        )
        return

    def show(header: list[str], rows: list[list[str]], title: str) -> None:
        if as_markdown:
            print(f"{title}\n\n{tables.markdown(header, rows)}\n")
        else:
            console.print(_table(header, rows, title))

    header, rows = tables.many(contents, names, benchmarks)
    rows.append(["mean rank ↓", *(f"{rank:.2f}" for rank in ranks)])
    show(header, rows, "Figure ± half its 95 % interval (samples)")
    for compared, name in zip(pairs, names[1:], strict=True):
        show(*tables.differences(compared), f"{names[0]} compared with {name}")
        print(f"{tables.summary(compared, names[0])}\n")


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> Table:
    table = Table(box=box.SIMPLE_HEAD, title=title or None, title_justify="left", pad_edge=False)
    for place, name in enumerate(header):
        table.add_column(name, justify="left" if place == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _refuse_unread(**given: Any) -> None:
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
) -> tuple[dict[str, Any], Path]:
    """What `results.json` then holds, and the folder it lies in."""
    from openeupe.distillation.chain import load_with_chains
    from openeupe.distributed import one_device
    from openeupe.encoders.exported import check_precision
    from openeupe.evaluation.benchmark import Judged
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
    judged = Judged(loaded, features, chains, folder, log)
    wanted = [name.strip() for name in only.split(",")] if only else None
    content = run_suite(suite, judged, folder, root=data, source=source, only=wanted, progress=log)
    return content, folder


def _results_folder(source: str, allow_code: bool) -> Path:
    """Inside a run or encoder folder; for names, `evaluations/NAME` here."""
    from openeupe.encoders import resolve

    own = resolve(source, allow_code=allow_code).results_folder()
    return own / "evaluations" if own else EVALUATIONS / folder_name(source)
