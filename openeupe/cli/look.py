"""The commands look, report and demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

import openeupe
from openeupe.cli.app import Device, app, console, progress
from openeupe.errors import InputError
from openeupe.limits import IMAGES, RESOLUTION


@app.command()
def look(
    what: Annotated[
        list[str],
        typer.Argument(
            metavar="ENCODER... IMAGE...",
            help="Encoders (a run, an encoder folder, a name, or untrained:NAME), then image files "
            "or folders of images.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("looks"),
    resolution: Annotated[
        int,
        typer.Option(min=32, max=RESOLUTION, help="Long side of the images in pixels."),
    ] = 512,
    only: Annotated[
        str | None,
        typer.Option(help="Some of pca,components,norms,similarity,matches,stages."),
    ] = None,
    axes: Annotated[
        str, typer.Option(help="Axes from each `image`, from the `batch`, or from a FOLDER.")
    ] = "image",
    mask: Annotated[
        str, typer.Option(help="`none`, `first` component, or a mask image: white is kept.")
    ] = "none",
    range_: Annotated[
        Literal["minmax", "robust", "whiten"], typer.Option("--range", help="Range of the colours.")
    ] = "minmax",
    align: Annotated[bool, typer.Option(help="Align the colours with the first encoder's.")] = True,
    patch: Annotated[
        str, typer.Option(metavar="X,Y", help="Patch to compare with, in shares of image 1.")
    ] = "0.5,0.5",
    components: Annotated[
        int, typer.Option(min=1, max=8, help="Number of single components to show.")
    ] = 8,
    upsampling: Annotated[
        Literal["nearest", "bilinear", "bicubic"],
        typer.Option(help="Upsampling from patches to pixels."),
    ] = "nearest",
    limit: Annotated[int, typer.Option(min=1, max=IMAGES, help="Maximum number of images.")] = 8,
    device: Device = None,
) -> None:
    """Visualize features of encoders on images: colours, components, norms, similarities, matches.

    A run also gets a picture of its students, stage by stage.

    Example: `openeupe look runs/quickstart efficientnet_lite0 photo.jpg`
    """
    encoders, images = _separated(what)
    seen = openeupe.look(
        encoders,
        images,
        out,
        device=device,
        progress=progress,
        resolution=resolution,
        only=only,
        axes=axes,
        mask=mask,
        range=range_,
        align=align,
        patch=patch,
        components=components,
        upsampling=upsampling,
        limit=limit,
    )
    for line in [*seen.lines(), *(f"wrote {file}" for file in seen.files)]:
        console.print(line, soft_wrap=True, highlight=False)


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="A run folder, finished or not.")],
    out: Annotated[
        Path | None, typer.Option(help="The page's file.  [default: RUN/report.html]")
    ] = None,
    images: Annotated[
        list[Path] | None,
        typer.Option(
            help="Images or a folder, instead of held-out images of the recipe. Can be repeated."
        ),
    ] = None,
    also: Annotated[
        list[str] | None, typer.Option(help="A further encoder to show. Can be repeated.")
    ] = None,
    results: Annotated[
        list[Path] | None,
        typer.Option(help="A further encoder's results folder of `evaluate`. Can be repeated."),
    ] = None,
    device: Device = None,
) -> None:
    """Write a report of a run as one self-contained HTML page.

    Recipe, losses, results, pictures, and similarities of patches to point at.

    Example: `openeupe report runs/quickstart`
    """
    page = openeupe.write_report(
        run,
        out,
        images=images or [],
        also=also or [],
        results=results or [],
        device=device,
        progress=progress,
    )
    size = page.stat().st_size / 1e6
    console.print(f"wrote {page} ({size:.1f} MB)", soft_wrap=True, highlight=False)


@app.command()
def demo(
    encoders: Annotated[list[str], typer.Argument(help="Encoders, as `look` takes them.")],
    resolution: Annotated[
        int,
        typer.Option(min=32, max=RESOLUTION, help="Long side of the images in pixels."),
    ] = 512,
    port: Annotated[int, typer.Option(help="Where the page is served, on this machine.")] = 7860,
    device: Device = None,
) -> None:
    """Serve a local page to compare encoders on uploaded images.

    Needs gradio: `pip install 'openeupe[demo]'`. Only this machine can open it.

    Example: `openeupe demo runs/quickstart efficientnet_lite0`
    """
    openeupe.demo(encoders, resolution=resolution, port=port, device=device)


def _separated(arguments: list[str]) -> tuple[list[str], list[Path]]:
    """Encoders and images: files with an image's ending and folders of images are images."""
    from openeupe.encoders.resolver import holds_encoder
    from openeupe.visualization.images import is_image

    encoders: list[str] = []
    images: list[Path] = []
    for argument in arguments:
        path = Path(argument)
        if is_image(path) or (path.is_dir() and not holds_encoder(path)):
            images.append(path)
        else:
            encoders.append(argument)
    if not encoders or not images:
        lacking = "encoder" if not encoders else "image"
        raise InputError(
            f"look needs an encoder and an image, and among {' '.join(arguments)} there is no "
            f"{lacking}: images are files ending in .jpg, .png, ... and folders of them"
        )
    return list(dict.fromkeys(encoders)), images
