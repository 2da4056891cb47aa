"""Shipping encoders: export, latency."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.table import Table

from openeupe.cli.app import EXPORTS, AsJson, app, console, error_progress, print_json, progress
from openeupe.errors import InputError
from openeupe.files import folder_name, read_mapping
from openeupe.limits import BATCH, STEPS


@app.command()
def export(
    encoder: Annotated[
        str, typer.Argument(help="A run, an encoder folder, a name, or untrained:NAME.")
    ],
    to: Annotated[
        str, typer.Option("--to", help="onnx, openvino, executorch, aoti or coreml.")
    ] = "onnx",
    precision: Annotated[
        Literal["fp32", "fp16", "bf16", "int8"] | None,
        typer.Option(help="[default: the target's most exact]", show_default=False),
    ] = None,
    resolution: Annotated[
        str | None,
        typer.Option(
            help="A file for each: 256,512 or 512x384 (height first).  [default: the encoder's own]"
        ),
    ] = None,
    dynamic: Annotated[bool, typer.Option("--dynamic", help="One file for all sizes.")] = False,
    images: Annotated[
        Path | None,
        typer.Option(help="Photos to calibrate and prove with.  [default: the package registry's]"),
    ] = None,
    uint8: Annotated[bool, typer.Option("--uint8", help="The file takes 0..255 pixels.")] = False,
    opset: Annotated[
        int | None, typer.Option(help="Of onnx and openvino files.  [default: 20]")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to write.  [default: exports/NAME-TARGET-PRECISION]"),
    ] = None,
) -> None:
    """Write a file that takes raw pixels and returns tokens, and prove it on photos.

    A file that misses its limit is set aside as `FOLDER.failed` and the exit code is 1.

    Example: `openeupe export runs/quickstart --to openvino --precision int8 --images photos`
    """
    from openeupe.deployment.export import ParityError
    from openeupe.deployment.export import export as export_encoder
    from openeupe.deployment.program import parse_sizes
    from openeupe.deployment.targets import TARGETS
    from openeupe.encoders import load
    from openeupe.share.origin import origin

    if dynamic and resolution:
        raise InputError("--dynamic and --resolution exclude each other: give one")
    sizes = parse_sizes(resolution) if resolution else None
    chosen = precision or (TARGETS[to].precisions[0] if to in TARGETS else "fp32")
    folder = out or _default_folder(encoder, to, chosen)
    loaded = load(encoder)
    try:
        about = export_encoder(
            loaded,
            folder,
            target=to,
            precision=precision,
            sizes=sizes,
            dynamic=dynamic,
            pixels="uint8" if uint8 else "float32",
            images=images,
            opset=opset,
            source=encoder,
            licences=origin(encoder, loaded).experts,
            progress=progress,
        )
    except ParityError as error:
        console.print(f"failed: {error}", style="red", soft_wrap=True, highlight=False)
        raise typer.Exit(1) from None
    size = sum(about["bytes"].values()) / 1e6
    console.print(
        f"{folder}: {size:.1f} MB. Try: python {shlex.quote(str(folder / 'example.py'))} PHOTO",
        soft_wrap=True,
        highlight=False,
    )


@app.command()
def latency(
    encoders: Annotated[list[str], typer.Argument(help="Encoders, exported folders, or both.")],
    resolution: Annotated[
        str | None, typer.Option(help="256 or 512x384.  [default: the file's or encoder's own]")
    ] = None,
    threads: Annotated[
        str | None, typer.Option(help="Numbers of threads: 1,4.  [default: 1 and all cores]")
    ] = None,
    rounds: Annotated[
        int, typer.Option(min=2, max=STEPS, help="Turns of each, of about 0.3 s.")
    ] = 10,
    batch: Annotated[
        int, typer.Option(min=1, max=BATCH, help="Images at once, for the throughput.")
    ] = 8,
    as_json: AsJson = False,
) -> None:
    """Latency, throughput, memory and size on this machine, in turns with eager PyTorch.

    Each contender runs in a process of its own; ratios are of rounds that lie beside each other,
    so that they hold on a busy machine. Exported folders keep their rows in `latency.json`.

    Example: `openeupe latency exports/mine-onnx-fp32 exports/mine-openvino-int8 runs/mine`
    """
    import dataclasses

    from openeupe.deployment import latency as measuring
    from openeupe.deployment.program import parse_sizes
    from openeupe.encoders import resolve
    from openeupe.encoders.export_layout import size_name
    from openeupe.encoders.sources import Export

    sizes = parse_sizes(resolution) if resolution else [None]
    if len(sizes) > 1:
        raise InputError(f"--resolution {resolution}: measure one size at a time")
    counts = [part.strip() for part in threads.split(",")] if threads else []
    if not all(part.isdigit() and int(part) for part in counts):
        raise InputError(f"--threads {threads}: write it as 1 or 1,4")
    contenders = [
        measuring.exported(source.path)
        if isinstance(source, Export)
        else measuring.eager(source.load(), "PyTorch fp32")
        for source in map(resolve, encoders)
    ]
    rows = measuring.measure(
        contenders,
        size=sizes[0],
        threads=[int(part) for part in counts] or None,
        rounds=rounds,
        batch=batch,
        progress=error_progress if as_json else progress,
    )
    if as_json:
        said = {"machine": measuring.machine(), "rows": [dataclasses.asdict(r) for r in rows]}
        print_json(said)
        return
    columns = ("ms p50", "p90", "x eager", "by min", "images/s", "memory MB", "of peak")
    table = Table("contender", "size", "threads", *columns, "file MB", "M params", "GMACs")
    for row in rows:
        table.add_row(
            row.label, size_name(row.size), f"{row.threads}", f"{row.latency_p50_ms:.1f}",
            f"{row.latency_p90_ms:.1f}", f"{row.ratio_median:.2f}", f"{row.ratio_minimum:.2f}",
            f"{row.images_per_second:.1f}", f"{row.memory_mb:.0f}",
            "" if row.of_peak is None else f"{row.of_peak:.0%}",
            f"{row.megabytes:.1f}", f"{row.parameters_m:.1f}", f"{row.gmacs:.2f}",
        )  # fmt: skip
    console.print(table)
    console.print(
        f"{measuring.machine()['processor']}. Batch 1 but for images/s. x eager: medians of rounds "
        "in turns; of peak: share of the matrix-multiply rate measured in the same run, in the "
        "precision that is computed in; empty where that is no faster than fp32 here.",
        highlight=False,
    )


def _default_folder(source: str, to: str, precision: str) -> Path:
    """Where an encoder is exported to if the user gives no place.

    Raises:
        InputError: if the export of an encoder with a similar name lies there.
    """
    name = folder_name(source.rstrip("/")).strip("._") or folder_name(Path(source).resolve().name)
    folder = EXPORTS / f"{name}-{to}-{precision}"
    before = read_mapping(folder / "export.json").get("source")
    if isinstance(before, str) and before.rstrip("/") != source.rstrip("/"):
        raise InputError(f"{folder} holds the export of {before}: choose another --out")
    return folder
