"""Making encoders: distill, plan."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

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
    torch_device,
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
    device: Device = None,
    allow_code: AllowCode = False,
) -> None:
    """Carry out a recipe; run the same command again to resume.

    Example: `openeupe distill direct data=photos stages.student.steps=1000`.
    On several GPUs: `torchrun --nproc-per-node 8 -m -- openeupe distill eupe`
    """
    from openeupe.distillation.recipe import load_recipe
    from openeupe.distillation.run import run_recipe

    loaded = load_recipe(recipe, overrides, allow_code=allow_code)
    folder = run or Path("runs") / loaded.name
    run_recipe(loaded, folder, device=torch_device(device), progress=progress)
    if first_process():
        console.print(f"Done: {folder}. In Python: openeupe.load({str(folder)!r})", soft_wrap=True)


@app.command()
def plan(
    recipe: RecipeName,
    overrides: Overrides = None,
    device: Annotated[
        str, typer.Option(help="a100, h100, h200, b200, l4, l40s, rtx4090, or this (measured now)")
    ] = "h100",
    efficiency: Annotated[
        float, typer.Option(min=0.01, max=1, help="Share of the device's matrix peak you reach.")
    ] = 0.4,
    devices: Annotated[
        int, typer.Option(min=1, max=DEVICES, help="How many devices share a batch.")
    ] = 1,
    allow_code: AllowCode = False,
    as_json: AsJson = False,
) -> None:
    """What each stage will cost: parameters, FLOPs, memory, device-hours. Runs nothing.

    Example: `openeupe plan eupe --device h100 --devices 256`
    """
    from openeupe.distillation import plan as planning
    from openeupe.distillation.devices import device_gib, device_has_bf16, device_tflops
    from openeupe.distillation.recipe import load_recipe

    loaded = load_recipe(recipe, overrides, allow_code=allow_code)
    gib, bf16 = device_gib(device), device_has_bf16(device)
    tflops = {
        precision: device_tflops(device, efficiency, precision)
        for precision in sorted(planning.precisions(loaded, bf16))
    }
    costs = planning.plan(loaded, tflops, devices, gib, bf16=bf16)
    if as_json:
        print_json([dataclasses.asdict(c) for c in costs])
        return
    table = Table("stage", "network", "parameters", "GFLOP/image", title=f"recipe {loaded.name}")
    for cost in costs:
        kinds = {"teacher": cost.teachers, "student": cost.students, "": cost.heads}
        for kind, rows in kinds.items():
            for row in rows:
                name, size = f"{kind} {row.name}".strip(), f"{row.parameters / 1e6:,.1f}M"
                table.add_row(cost.stage, name, size, f"{row.gflops:,.2f}")
        table.add_section()
    console.print(table)
    heads = "stage", "images", "GFLOP\nan image", "memory\na device", "read", "stored"
    table = Table(*heads, "device-\nhours")  # two lines each: a terminal has 80 columns
    for cost in costs:
        read = "data not here" if cost.read_gib is None else f"{cost.read_gib:,.1f} GiB"
        table.add_row(
            cost.stage,
            _short(cost.images),
            f"{cost.gflops_per_image:,.1f}",
            f"> {cost.memory_gib:,.1f} GiB",
            read,
            f"{cost.stored_gib:,.1f} GiB" if cost.stored_gib else "",
            _hours(cost.device_hours),
        )
    total = sum(c.device_hours for c in costs)
    table.add_row("all", _short(sum(c.images for c in costs)), "", "", "", "", _hours(total))
    console.print(table)
    for cost in costs:
        if cost.sharded:
            console.print(
                f"{cost.stage}: shared among the devices of a node: {', '.join(cost.sharded)}",
                highlight=False,
            )
    rates = ", ".join(f"{rate:,.2f} TFLOP/s in {name}" for name, rate in tflops.items())
    console.print(
        f"{device} at {rates} sustained (efficiency {efficiency:g}): {_hours(total)} "
        f"device-hours, {_hours(total / devices)} hours on {devices}. A multiply-add counts as two "
        "FLOPs. Memory is a lower bound: weights, AdamW, and what autograd keeps, each in its "
        "precision; a run takes about a tenth more.",
        highlight=False,
    )


def _short(images: int) -> str:
    return f"{images / 1e6:,.1f}M" if images >= 1e6 else f"{images:,}"


def _hours(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:,.2f}"
