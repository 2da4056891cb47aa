"""Evaluating encoders: evaluate, compare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

import openeupe
from openeupe.cli.app import (
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
    show,
)
from openeupe.limits import BATCH, WORKERS

Suite = Annotated[
    str, typer.Option(help="mini, eupe, or a suite file.", autocompletion=packaged("suite"))
]
DataRoot = Annotated[Path, typer.Option("--data", help="Folder that the suite's paths start from.")]
Precision = Annotated[
    Literal["fp32", "bf16"], typer.Option(help="Precision of the encoder; bf16 is autocast.")
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
    """Evaluate an encoder. Run the same command again to resume or to add benchmarks.

    Suites: `mini` needs no data; `eupe` is the paper's eleven benchmarks; or a suite file of your
    own.

    Example: `openeupe evaluate runs/quickstart --suite mini`
    """
    results = openeupe.evaluate(
        encoder,
        suite,
        data=data,
        out=out,
        overrides=overrides,
        device=device,
        allow_code=allow_code,
        progress=error_progress if as_json else progress,
        only=only,
        precision=precision,
        batch_size=batch_size,
        workers=workers,
    )
    if as_json:
        print_json(results.to_json())
        return
    show(results.table())
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
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="Print tables as Markdown.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare encoders on all benchmarks, with significance tests.

    Missing results are evaluated first. The first is compared with each of the others:
    95 % intervals and permutation tests on the same samples, corrected by Holm over the benchmarks.

    Example: `openeupe compare runs/mine efficientnet_lite0 untrained:resnet10t`
    """
    compared = openeupe.compare(
        *encoders,
        suite=suite,
        data=data,
        device=device,
        progress=error_progress if as_json else progress,
        precision=precision,
    )
    if as_json:
        print_json(compared.to_json())
        return
    for table, summary in [
        (compared.table(), ""),
        *((pair.table(), f"{pair.summary()}\n") for pair in compared.pairs),
    ]:
        if as_markdown:
            print(f"{table.title}\n\n{table.markdown()}\n")
        else:
            show(table)
        if summary:
            print(summary)
