"""The commands save and push."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

import openeupe
from openeupe.cli.app import app, console


@app.command()
def save(
    encoder: Annotated[str, typer.Argument(help="Any source that `openeupe.load` takes.")],
    folder: Annotated[Path, typer.Argument(help="New folder, or an encoder to replace.")],
    layout: Annotated[
        Literal["openeupe", "timm", "transformers"],
        typer.Option("--for", help="Library that can load the folder."),
    ] = "openeupe",
    licence: Annotated[
        str | None,
        typer.Option(help="SPDX licence for the card.  [default: the strictest teacher's]"),
    ] = None,
) -> None:
    """Save an encoder as a folder: safetensors, config and a model card.

    The card contains results, recipe, data, and the licences of all teachers.

    Example: `openeupe save runs/quickstart my-encoder --for timm`
    """
    openeupe.save(encoder, folder, layout, licence=licence)
    console.print(f"Saved {folder}; its README.md explains how to load it.", soft_wrap=True)


@app.command()
def push(
    folder: Annotated[Path, typer.Argument(help="Folder that `openeupe save` wrote.")],
    repository: Annotated[str, typer.Argument(help="OWNER/NAME on the Hugging Face hub.")],
    private: Annotated[
        bool, typer.Option("--private", help="Make the repository private.")
    ] = False,
) -> None:
    """Upload a saved folder to a hub repository. Creates it if needed.

    The token comes from HF_TOKEN or `hf auth login`.

    Example: `openeupe push my-encoder me/my-encoder --private`
    """
    address = openeupe.push(folder, repository, private=private)
    console.print(f"Pushed to {address}", soft_wrap=True, highlight=False)
