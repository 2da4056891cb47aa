"""The command curate."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import openeupe
from openeupe.cli.app import AsJson, Device, app, console, first_process, print_json, progress

if TYPE_CHECKING:
    from openeupe.api.curate import Curated


@app.command()
def curate(
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="FOLDER|SHARDS|KEY=VALUE...",
            help="Folders of images and tar shards; then settings to change: size=1000.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="The manifest to write, ending in .parquet.")],
    encoder: Annotated[
        str,
        typer.Option(help="Encoder to compare images with, as `look` takes it; none: bytes only."),
    ] = "efficientnet_lite0",
    against: Annotated[
        list[str] | None,
        typer.Option(
            help="Evaluation images: images that duplicate these are removed. Can be repeated."
        ),
    ] = None,
    like: Annotated[
        list[str] | None,
        typer.Option(help="A seed set: only the images nearest to it are kept. Can be repeated."),
    ] = None,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Make a training set of image folders: no copies, no test images, balanced.

    Writes a manifest that `distill` reads, a summary (.md) and a page (.html) next to it. Repeat
    the command to resume. All settings, with their defaults, are on the page
    docs/curate.md.

    Example: `openeupe curate photos --out curated.parquet --against test size=10000`
    """
    from openeupe.config import parsed_overrides

    settings = [word for word in images if _is_setting(word)]
    made = openeupe.curate(
        [word for word in images if word not in settings],
        out,
        encoder=None if encoder == "none" else encoder,
        against=against or [],
        like=like or [],
        device=device,
        progress=progress,
        **dict(parsed_overrides(settings)),
    )
    if not first_process():
        return
    if as_json:
        print_json(made.to_json())
    else:
        _tell(made)


def _is_setting(word: str) -> bool:
    """Whether an argument is KEY=VALUE, and not a folder of such a name."""
    return re.match(r"\w+=", word) is not None and not Path(word).exists()


def _tell(made: Curated) -> None:
    from openeupe.curation.summary import unprotected

    dropped = ", ".join(f"{count} {reason}" for reason, count in made.dropped.items())
    console.print(f"{made.images} images, {made.kept} kept; dropped: {dropped or 'none'}")
    if blind := made.unreadable["against"]:
        console.print(f"{unprotected(len(blind))}: {blind[0]}", soft_wrap=True, highlight=False)
    if blind := made.unreadable["like"]:
        message = f"{len(blind)} images of --like cannot be read: {blind[0]}"
        console.print(message, soft_wrap=True, highlight=False)
    for file in made.files:
        console.print(f"wrote {file}", soft_wrap=True, highlight=False)
