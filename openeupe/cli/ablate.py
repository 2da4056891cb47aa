"""The command ablate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
)
from openeupe.errors import InputError
from openeupe.limits import WORKERS


@app.command()
def ablate(
    study: Annotated[
        str,
        typer.Argument(
            help="A study file, or the name of a packaged one.", autocompletion=packaged("study")
        ),
    ],
    overrides: Overrides = None,
    out: Annotated[
        Path | None, typer.Option(help="Output folder.  [default: studies/NAME]")
    ] = None,
    data: Annotated[
        Path,
        typer.Option("--data", help="Folder that the recipes' and the suite's paths start from."),
    ] = Path(),
    jobs: Annotated[
        int, typer.Option(min=1, max=WORKERS, help="Stages and evaluations at a time.")
    ] = 1,
    device: Device = None,
    run: Annotated[
        bool, typer.Option("--run/--no-run", help="Only rebuild tables from existing results.")
    ] = True,
    allow_code: AllowCode = False,
    as_json: AsJson = False,
) -> None:
    """Run a study: recipes x seeds, trained, evaluated and compared; repeat to resume.

    Stages that several recipes share are trained once. Writes results-NAME.json and
    tables-NAME.md.

    Example: `openeupe ablate stages --data photos --out studies/stages`
    """
    from rich.markdown import Markdown

    from openeupe.api.ablate import read_ablation

    log = error_progress if as_json else progress
    if run:
        done = openeupe.ablate(
            study,
            overrides=overrides,
            out=out,
            data=data,
            jobs=jobs,
            device=device,
            allow_code=allow_code,
            progress=log,
        )
    else:
        done = read_ablation(
            study, overrides=overrides, out=out, data=data, allow_code=allow_code, progress=log
        )
    if as_json:
        print_json(done.to_json())
    else:
        console.print(Markdown(done.markdown()))
        console.print(f"Saved in {done.folder}", soft_wrap=True, highlight=False)
    if done.failed:
        more = f" (and {len(done.failed) - 1} more)" if len(done.failed) > 1 else ""
        raise InputError(f"{done.failed[0]}{more}; the same command continues with the rest")
