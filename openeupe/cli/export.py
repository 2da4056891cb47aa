"""Shipping encoders: export, latency."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

import openeupe
from openeupe.cli.app import AsJson, app, console, error_progress, print_json, progress, show
from openeupe.errors import InputError
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
        typer.Option(help="Images for calibration and parity.  [default: the package registry's]"),
    ] = None,
    uint8: Annotated[bool, typer.Option("--uint8", help="The file takes 0..255 pixels.")] = False,
    opset: Annotated[
        int | None, typer.Option(help="Opset of onnx and openvino files.  [default: 20]")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to write.  [default: exports/NAME-TARGET-PRECISION]"),
    ] = None,
) -> None:
    """Export an encoder to a file, and verify its tokens on images.

    A file that misses its limit is set aside as `FOLDER.failed` and the exit code is 1.

    Example: `openeupe export runs/quickstart --to openvino --precision int8 --images photos`
    """
    from openeupe.deployment.export import ParityError

    try:
        made = openeupe.export(
            encoder,
            to,
            out,
            images=images,
            progress=progress,
            precision=precision,
            resolution=resolution,
            dynamic=dynamic,
            pixels="uint8" if uint8 else "float32",
            opset=opset,
        )
    except ParityError as error:
        console.print(f"failed: {error}", style="red", soft_wrap=True, highlight=False)
        raise typer.Exit(1) from None
    example = shlex.quote(str(made.folder / "example.py"))
    line = f"{made.folder}: {made.megabytes:.1f} MB. Try: python {example} IMAGE"
    console.print(line, soft_wrap=True, highlight=False)


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
        int, typer.Option(min=2, max=STEPS, help="Rounds of about 0.3 s for each.")
    ] = 10,
    batch: Annotated[
        int, typer.Option(min=1, max=BATCH, help="Images at once, for the throughput.")
    ] = 8,
    as_json: AsJson = False,
) -> None:
    """Measure latency, throughput, memory and size on this machine. Eager PyTorch takes turns with
    the exports.

    Each one runs in a separate process. Ratios compare neighbouring rounds, so that they are
    reliable on a busy machine. Exported folders save their rows in `latency.json`.

    Example: `openeupe latency exports/mine-onnx-fp32 exports/mine-openvino-int8 runs/mine`
    """
    counts = [part.strip() for part in threads.split(",")] if threads else []
    if not all(part.isdigit() and int(part) for part in counts):
        raise InputError(f"--threads {threads}: write it as 1 or 1,4")
    found = openeupe.latency(
        encoders,
        resolution=resolution,
        threads=[int(part) for part in counts] or None,
        rounds=rounds,
        batch=batch,
        progress=error_progress if as_json else progress,
    )
    if as_json:
        print_json(found.to_json())
    else:
        show(found.table())
