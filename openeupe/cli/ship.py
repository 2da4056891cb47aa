"""Shipping encoders: export, benchmark."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.markup import escape

from openeupe.cli.app import app, console


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
    opset: Annotated[int, typer.Option(help="Of ONNX files.")] = 20,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to write.  [default: exports/NAME-TARGET-PRECISION]"),
    ] = None,
) -> None:
    """Write a file that takes raw pixels and returns tokens, and prove it on photos.

    A file that misses its limit is set aside as `FOLDER.failed` and the exit code is 1.

    Example: `openeupe export runs/quickstart --to openvino --precision int8 --images photos`
    """
    from openeupe.deploy.export import ParityError
    from openeupe.deploy.export import export as export_encoder
    from openeupe.deploy.program import parse_sizes
    from openeupe.deploy.targets import TARGETS
    from openeupe.errors import InputError
    from openeupe.loading import load

    if dynamic and resolution:
        raise InputError("--dynamic and --resolution exclude each other: give one")
    sizes = parse_sizes(resolution) if resolution else None
    chosen = precision or (TARGETS[to].precisions[0] if to in TARGETS else "fp32")
    folder = out or Path("exports") / f"{_plain(encoder)}-{to}-{chosen}"
    try:
        about = export_encoder(
            load(encoder),
            folder,
            target=to,
            precision=precision,
            sizes=sizes,
            dynamic=dynamic,
            pixels="uint8" if uint8 else "float32",
            images=images,
            opset=opset,
            source=encoder,
            console=console,
        )
    except ParityError as error:
        console.print(f"[bold red]failed:[/] {escape(str(error))}", soft_wrap=True, highlight=False)
        raise typer.Exit(1) from None
    size = sum(about["bytes"].values()) / 1e6
    console.print(
        f"{folder}: {size:.1f} MB. Try: python {folder / 'example.py'} PHOTO",
        soft_wrap=True,
        highlight=False,
    )


def _plain(name: str) -> str:
    """A source as a part of a folder's name."""
    return re.sub(r"[^\w.-]+", "_", name.rstrip("/")).strip("._")
