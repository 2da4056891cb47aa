"""The commands look, report and demo."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from openeupe.cli.app import EXPORTS, Device, app, console, progress
from openeupe.errors import InputError
from openeupe.limits import IMAGES, RESOLUTION

if TYPE_CHECKING:
    import torch

    from openeupe.encoders import Encoder

_REFERENCE_PHOTOS = 64  # at most: a set's axes change little beyond


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
        typer.Option(
            min=32, max=RESOLUTION, help="Long side in pixels at which the photos are seen."
        ),
    ] = 512,
    only: Annotated[
        str | None,
        typer.Option(help="Some of pca,components,norms,similarity,matches,stages."),
    ] = None,
    axes: Annotated[
        str, typer.Option(help="Axes from each `image`, from the `batch`, or from a FOLDER.")
    ] = "image",
    mask: Annotated[
        str, typer.Option(help="`none`, `first` component, or a picture: white is kept.")
    ] = "none",
    range_: Annotated[
        Literal["minmax", "robust", "whiten"], typer.Option("--range", help="Of the colours.")
    ] = "minmax",
    align: Annotated[
        bool, typer.Option(help="Turn the colours towards the first encoder's.")
    ] = True,
    patch: Annotated[
        str, typer.Option(metavar="X,Y", help="Patch to compare with, in shares of photo 1.")
    ] = "0.5,0.5",
    components: Annotated[int, typer.Option(min=1, max=8, help="Single components shown.")] = 8,
    upsampling: Annotated[
        Literal["nearest", "bilinear", "bicubic"], typer.Option(help="Of patches to pixels.")
    ] = "nearest",
    limit: Annotated[int, typer.Option(min=1, max=IMAGES, help="Photos at most.")] = 8,
    device: Device = None,
) -> None:
    """Show what encoders see in photos: colours, components, norms, similarities, matches.

    A run also gets a picture of its students, stage by stage.

    Example: `openeupe look runs/quickstart efficientnet_lite0 photo.jpg`
    """
    from openeupe.distributed import one_device
    from openeupe.encoders import load
    from openeupe.visualization import pictures
    from openeupe.visualization.colours import Axes, Colouring, Mask
    from openeupe.visualization.figures import extent, variance
    from openeupe.visualization.images import read_mask, read_photos

    names, paths = _told_apart(what)
    kinds = pictures.chosen_kinds(only)
    at = _place(patch)
    photos = read_photos(paths, resolution, limit)
    if only is not None and "matches" in kinds and len(photos) < 2:
        raise InputError("--only matches: they are between two photos: give another one")
    if only is not None and "stages" in kinds and not _runs(names):
        raise InputError("--only stages: they are of a run: name its folder")
    own = axes in ("image", "batch")
    if not own and not Path(axes).is_dir():
        raise InputError(f"--axes {axes}: use image, batch, or a folder of images")
    reference = [] if own else read_photos([Path(axes)], resolution, _REFERENCE_PHOTOS)
    kept = mask if mask in ("none", "first") else [read_mask(Path(mask))] * len(photos)
    how = Colouring(cast(Axes, axes if own else "reference"), range_, cast(Mask, kept), align)
    on = one_device(device)
    looked = pictures.draw(
        {name: load(name).to(on) for name in names},
        photos,
        out,
        pictures.Wish(kinds, how, at, components, upsampling),
        reference=reference,
        stages=_stages(names, on) if "stages" in kinds else {},
        progress=progress,
    )
    for name, images in looked.coloured.items():
        for photo, one in zip(photos, images, strict=True):
            told = f"{name}, {photo.name}: {variance(one)}, {extent(one)}"
            console.print(told, soft_wrap=True, highlight=False)
    for file in looked.files:
        console.print(f"wrote {file}", soft_wrap=True, highlight=False)


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
    beside: Annotated[
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
    from openeupe.distributed import one_device
    from openeupe.report.page import write_report
    from openeupe.report.seen import see

    seen = see(
        run,
        images=images or [],
        beside=beside or [],
        device=one_device(device),
        progress=progress,
    )
    page = write_report(run, seen, out, results or [], EXPORTS)
    size = page.stat().st_size / 1e6
    console.print(f"wrote {page} ({size:.1f} MB)", soft_wrap=True, highlight=False)


@app.command()
def demo(
    encoders: Annotated[list[str], typer.Argument(help="Encoders, as `look` takes them.")],
    resolution: Annotated[
        int,
        typer.Option(min=32, max=RESOLUTION, help="Long side in pixels at which photos are seen."),
    ] = 512,
    port: Annotated[int, typer.Option(help="Where the page is served, on this machine.")] = 7860,
    device: Device = None,
) -> None:
    """Serve a page to upload a photo to, compare encoders on it, and point at patches.

    Needs gradio: `pip install 'openeupe[demo]'`. Reached from this machine alone.

    Example: `openeupe demo runs/quickstart efficientnet_lite0`
    """
    from openeupe.distributed import one_device
    from openeupe.encoders import load
    from openeupe.visualization.demo import build

    on = one_device(device)
    blocks = build({name: load(name).to(on) for name in encoders}, resolution)
    blocks.launch(server_name="127.0.0.1", server_port=port, share=False)


def _told_apart(arguments: list[str]) -> tuple[list[str], list[Path]]:
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


def _stages(names: list[str], device: torch.device) -> dict[str, dict[str, Encoder]]:
    """Of each run among the names, the students of its stages, by the run's folder name.

    Runs of one folder name are numbered.
    """
    from openeupe.distillation.run_folder import Run, load_stages
    from openeupe.visualization.images import unused_name

    stages: dict[str, dict[str, Encoder]] = {}
    for run in _runs(names):
        students = load_stages(Run.open(run))
        name = unused_name(run.resolve().name, stages)
        stages[name] = {key: encoder.to(device) for key, encoder in students.items()}
    return stages


def _runs(names: list[str]) -> list[Path]:
    """The run folders among names of encoders."""
    from openeupe.encoders.run_layout import is_run

    return [Path(name) for name in names if is_run(Path(name))]


def _place(text: str) -> tuple[float, float]:
    found = re.fullmatch(r"\s*([\d.]+)\s*,\s*([\d.]+)\s*", text)
    try:
        x, y = (float(part) for part in found.groups()) if found else (2.0, 2.0)
    except ValueError:
        x, y = 2.0, 2.0
    if not (0 <= x <= 1 and 0 <= y <= 1):
        raise InputError(f"--patch {text}: give X,Y between 0 and 1, as in 0.25,0.6")
    return x, y
