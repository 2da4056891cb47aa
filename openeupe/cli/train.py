"""Making encoders: distill, plan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

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
from openeupe.errors import InputError
from openeupe.limits import DEVICES

if TYPE_CHECKING:
    from openeupe.distillation.recipe import Recipe

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
    recipe: Annotated[
        str | None,
        typer.Argument(
            metavar="RECIPE",
            help="A recipe file, or the name of a packaged one; none with --teacher.",
            autocompletion=packaged("recipe"),
            show_default=False,
        ),
    ] = None,
    overrides: Overrides = None,
    teacher: Annotated[
        list[str] | None, typer.Option(help="In place of a recipe: a teacher; may be repeated.")
    ] = None,
    student: Annotated[str | None, typer.Option(help="With --teacher: the student.")] = None,
    resolution: Annotated[
        int, typer.Option(min=1, help="With --teacher: pixels that the encoders see.")
    ] = 128,
    data: Annotated[
        list[str] | None, typer.Option(help="Images to train on; may be repeated.")
    ] = None,
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
    Without a recipe: `openeupe distill --teacher dinov2_s_focus --student resnet10t --data photos`.
    On several GPUs: `torchrun --nproc-per-node 8 -m -- openeupe distill eupe`
    """
    changes = [*(overrides or []), *([f"budget={budget}"] if budget else [])]
    chosen: str | Recipe | None = recipe
    if teacher or student:
        if recipe is not None and "=" in recipe:  # no recipe, so the first change stands there
            changes, recipe = [recipe, *changes], None
        chosen = _short(recipe, teacher, student, resolution, changes, allow_code)
        changes = []
    if chosen is None:
        raise InputError("name a recipe, or give --teacher and --student")
    done = openeupe.distill(
        chosen,
        data=data,
        run=run,
        overrides=changes,
        device=device,
        allow_code=allow_code,
        progress=progress,
    )
    if first_process():
        folder = str(done.folder)
        console.print(f"Done: {folder}. In Python: openeupe.load({folder!r})", soft_wrap=True)


def _short(
    recipe: str | None,
    teachers: list[str] | None,
    student: str | None,
    resolution: int,
    changes: list[str],
    allow_code: bool,
) -> Recipe:
    """The recipe of --teacher and --student."""
    if recipe is not None:
        raise InputError(f"give either the recipe {recipe} or --teacher and --student")
    if not teachers or not student:
        raise InputError("--teacher and --student belong together: give both")
    return openeupe.short_recipe(
        teachers, student, resolution=resolution, overrides=changes, allow_code=allow_code
    )


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
