"""Making encoders: distill, plan."""

from __future__ import annotations

from typing import Annotated

import typer

import openeupe
from openeupe.cli.app import (
    AllowCode,
    AsJson,
    Device,
    Overrides,
    RunFolder,
    app,
    console,
    first_process,
    packaged,
    print_json,
    progress,
    show,
)
from openeupe.limits import DEVICES

RecipeName = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE",
        help="A recipe file, or the name of a packaged one.",
        autocompletion=packaged("recipe"),
    ),
]


@app.command()
def distill(
    recipe: RecipeName,
    overrides: Overrides = None,
    run: RunFolder = None,
    budget: Annotated[
        str | None,
        typer.Option(help="Time for the run, as 10m or 2h, which chooses the numbers of steps."),
    ] = None,
    device: Device = None,
    allow_code: AllowCode = False,
) -> None:
    """Train the stages of a recipe. Run the same command again to resume.

    Example: `openeupe distill direct data=photos stages.student.steps=1000`.
    On several GPUs: `torchrun --nproc-per-node 8 -m -- openeupe distill eupe`
    """
    done = openeupe.distill(
        recipe,
        run=run,
        overrides=[*(overrides or []), *([f"budget={budget}"] if budget else [])],
        device=device,
        allow_code=allow_code,
        progress=progress,
    )
    if first_process():
        folder = str(done.folder)
        console.print(f"Done: {folder}. In Python: openeupe.load({folder!r})", soft_wrap=True)


@app.command()
def plan(
    recipe: RecipeName,
    overrides: Overrides = None,
    device: Annotated[
        str, typer.Option(help="a100, h100, h200, b200, l4, l40s, rtx4090, or this (measured now)")
    ] = "h100",
    efficiency: Annotated[
        float,
        typer.Option(
            min=0.01, max=1, help="Share of the device's peak matrix rate that is reached."
        ),
    ] = 0.4,
    devices: Annotated[
        int, typer.Option(min=1, max=DEVICES, help="Number of devices that share a batch.")
    ] = 1,
    allow_code: AllowCode = False,
    as_json: AsJson = False,
) -> None:
    """Compute what each stage will cost: parameters, FLOPs, memory, device-hours. Runs nothing.

    Example: `openeupe plan eupe --device h100 --devices 256`
    """
    costs = openeupe.plan(
        recipe,
        overrides=overrides,
        device=device,
        devices=devices,
        efficiency=efficiency,
        allow_code=allow_code,
    )
    if as_json:
        print_json(costs.to_json())
        return
    show(costs.networks())
    show(costs.table())
