"""Making a training set: curate."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from openeupe.cli.app import (
    AsJson,
    Device,
    app,
    console,
    first_process,
    print_json,
    progress,
)
from openeupe.errors import InputError

if TYPE_CHECKING:
    from openeupe.curation import CurateConfig

_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9}


@app.command()
def curate(
    heap: Annotated[
        list[str],
        typer.Argument(metavar="FOLDER|SHARDS...", help="Folders of images, and tar shards."),
    ],
    out: Annotated[Path, typer.Option(help="The manifest to write, ending in .parquet.")],
    encoder: Annotated[
        str,
        typer.Option(help="Tells which images are alike, as `look` takes it; none: bytes only."),
    ] = "efficientnet_lite0",
    against: Annotated[
        list[str] | None,
        typer.Option(help="Evaluation images: what shows one of them is dropped; again."),
    ] = None,
    like: Annotated[
        list[str] | None, typer.Option(help="A seed set: only what is nearest to it stays; again.")
    ] = None,
    size: Annotated[int | None, typer.Option(help="Images to keep.  [default: all]")] = None,
    shards: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Also copy what is kept to tar shards of at most SIZE."),
    ] = None,
    work: Annotated[
        Path | None,
        typer.Option(help="Keeps what was read and embedded, for other settings too.  [OUT.work]"),
    ] = None,
    hash_distance: Annotated[
        int | None,
        typer.Option(
            help="Bits of 64 by which copies may differ.  [default: 18; 10 without encoder]"
        ),
    ] = None,
    similarity: Annotated[
        float,
        typer.Option(help="Cosine of embeddings that copies have at least, or else nearer hashes."),
    ] = 0.85,
    leak_similarity: Annotated[
        float, typer.Option(help="The same, between an image and an evaluation image.")
    ] = 0.8,
    agreement: Annotated[
        float,
        typer.Option(help="Correlation of the edges of copies once aligned; 0: not looked at."),
    ] = 0.92,
    leak_agreement: Annotated[
        float, typer.Option(help="The same, between an image and an evaluation image.")
    ] = 0.8,
    mirrored: Annotated[bool, typer.Option(help="A mirrored image is a copy, too.")] = True,
    min_side: Annotated[int, typer.Option(help="Smaller images are dropped.")] = 64,
    max_aspect: Annotated[float, typer.Option(help="Narrower images are dropped.")] = 5.0,
    like_each: Annotated[int, typer.Option(help="Images fetched for each of the seed set.")] = 16,
    balance: Annotated[
        Literal["clusters", "neighbours"],
        typer.Option(help="By clusters, or by how many neighbours are like an image."),
    ] = "clusters",
    near: Annotated[float, typer.Option(help="Cosine of neighbours that are alike.")] = 0.2,
    clusters: Annotated[
        str | None, typer.Option(metavar="N,N,...", help="Of each level, the finest first.")
    ] = None,
    resampling: Annotated[int, typer.Option(help="Rounds of resampled k-means.")] = 1,
    max_weight: Annotated[
        float, typer.Option(help="Times that an image is drawn for one draw of a mean one.")
    ] = 8.0,
    side: Annotated[
        int | None, typer.Option(help="Pixels the encoder sees.  [default: its own]")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of clusters and of what is chosen from them.")] = 0,
    workers: Annotated[int, typer.Option(help="Threads that read and decode.")] = 2,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Make a training set of a heap of images: no copies, no test images, balanced.

    Writes a manifest that `distill` reads, a summary (.md) and a page (.html) beside it. Called
    again, it goes on where it was.

    Example: `openeupe curate photos --out curated.parquet --against test`
    """
    from openeupe.curation import curate as run
    from openeupe.curation.summary import summary
    from openeupe.distributed import one_device
    from openeupe.encoders import load
    from openeupe.files import write_atomically
    from openeupe.report.curation import write_curation

    limit = None if shards is None else _bytes(shards)
    config = _config(
        seed=seed,
        min_side=min_side,
        max_aspect=max_aspect,
        hash_distance=hash_distance,
        similarity=similarity,
        leak_similarity=leak_similarity,
        agreement=agreement,
        leak_agreement=leak_agreement,
        mirrored=mirrored,
        side=side,
        like_each=like_each,
        balance=balance,
        near=near,
        clusters=None if clusters is None else _numbers(clusters),
        resampling=resampling,
        size=size,
        max_weight=max_weight,
        workers=workers,
    )
    if encoder == "none" and device is not None:
        raise InputError("--device has no effect without --encoder: leave it out, or name one")
    eyes = None if encoder == "none" else load(encoder).to(one_device(device))
    about = run(
        heap,
        out,
        eyes,
        config,
        against=against or [],
        like=like or [],
        work=work,
        progress=progress,
    )
    if not first_process():
        return
    write_atomically(out.with_suffix(".md"), summary(out))
    page = write_curation(out)
    if limit is not None:
        from openeupe.curation.tars import write_shards

        made = write_shards(out, out.with_suffix(".shards"), limit, progress)
        about["shards"] = str(made)
    if as_json:
        print_json({key: value for key, value in about.items() if key != "parents"})
    else:
        _tell(about, [out, out.with_suffix(".md"), page])


def _config(**settings: Any) -> CurateConfig:
    from pydantic import ValidationError

    from openeupe.curation import CurateConfig

    try:
        return CurateConfig(**settings)
    except ValidationError as error:
        first = error.errors()[0]
        option = "--" + str(first["loc"][0]).replace("_", "-")
        raise InputError(f"{option}: {first['msg']} (got {first['input']!r})") from None


def _tell(about: dict[str, Any], files: list[Path]) -> None:
    from openeupe.curation.summary import unprotected

    dropped = ", ".join(f"{count} {reason}" for reason, count in about["dropped"].items())
    console.print(f"{about['images']} images, {about['kept']} kept; dropped: {dropped or 'none'}")
    if blind := about["unreadable_against"]:
        console.print(f"{unprotected(len(blind))}: {blind[0]}", soft_wrap=True, highlight=False)
    if blind := about["unreadable_like"]:
        console.print(
            f"{len(blind)} images of --like cannot be read: {blind[0]}",
            soft_wrap=True,
            highlight=False,
        )
    for file in (*files, about.get("shards")):
        if file is not None:
            console.print(f"wrote {file}", soft_wrap=True, highlight=False)


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"--clusters {text}: write it as 400,50") from None


def _bytes(text: str) -> int:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(KB|MB|GB)", text.strip().upper())
    if found is None or float(found[1]) <= 0:
        raise InputError(f"--shards {text}: write it as 500MB or 1GB")
    return int(float(found[1]) * _UNITS[found[2]])
