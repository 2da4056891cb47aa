"""Draw and save visualizations of encoders on images."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from openeupe.encoders import Encoder
from openeupe.errors import InputError
from openeupe.progress import LOGGED, Progress
from openeupe.visualization import figures
from openeupe.visualization.colours import Coloured, Colouring, colour
from openeupe.visualization.images import Photo, patch_tokens

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = ("pca", "components", "norms", "similarity", "matches", "stages")


@dataclass(frozen=True)
class Wish:
    """What to draw.

    kinds: of `KINDS`. at: the patch to compare with, in shares of the first image's width and
    height. components: how many single ones.
    """

    kinds: Sequence[str] = KINDS
    how: Colouring = field(default_factory=Colouring)
    at: tuple[float, float] = (0.5, 0.5)
    components: int = 8
    upsampling: str = "nearest"


@dataclass
class Looked:
    """Pictures of what encoders see.

    Attributes:
        files: what was written.
        forward_s: seconds that the encoders' forward passes took.
        photos: names of the images.
        coloured: the colours and measures of `pca.png`, by encoder and image.
    """

    files: list[Path]
    forward_s: float
    photos: list[str]
    coloured: dict[str, list[Coloured]]

    def lines(self) -> list[str]:
        """Explained variance and coherence of each encoder's colours of each photo."""
        return [
            f"{name}, {photo}: {figures.variance(one)}, {figures.extent(one)}"
            for name, images in self.coloured.items()
            for photo, one in zip(self.photos, images, strict=True)
        ]


def draw(
    encoders: Mapping[str, Encoder],
    photos: Sequence[Photo],
    folder: Path,
    wish: Wish | None = None,
    *,
    reference: Sequence[Photo] = (),
    stages: Mapping[str, Mapping[str, Encoder]] | None = None,
    progress: Progress = LOGGED,
) -> Looked:
    """Encode every image with every encoder, and write figures to `folder`.

    Args:
        encoders: by their names in captions.
        reference: with `wish.how.axes == "reference"`, the images that the axes are fitted on.
        stages: run -> its students, stage by stage; one figure per run.
    """
    wish = wish or Wish()
    tokens, seen, forward_s = _look(encoders, photos, reference, progress)
    with progress.task("drawing", 1):
        coloured = colour(tokens, wish.how, seen)
        drawn = _drawn(photos, tokens, coloured, wish)
    for run, students in (stages or {}).items():
        told, told_reference, seconds = _look(students, photos, reference, progress)
        forward_s += seconds
        last = list(told)[-1]  # the others' colours are turned towards its
        rows = colour({last: told[last], **told}, wish.how, told_reference)
        rows = {name: rows[name] for name in told}
        drawn |= _components(f"stages_{run}", photos, rows, wish, last)
    files = []
    with progress.task("writing", len(drawn)) as task:
        for name, figure in drawn.items():
            files.append(figures.save(figure, folder / f"{name}.png"))
            task.advance()
    return Looked(files, forward_s, [photo.name for photo in photos], coloured)


def _look(
    encoders: Mapping[str, Encoder],
    photos: Sequence[Photo],
    reference: Sequence[Photo],
    progress: Progress,
) -> tuple[dict[str, list[Tensor]], dict[str, list[Tensor]], float]:
    """Tokens of the images and of the reference set by encoder, and seconds."""
    tokens: dict[str, list[Tensor]] = {}
    seen: dict[str, list[Tensor]] = {}
    started = time.perf_counter()
    for name, encoder in encoders.items():
        with progress.task(f"{name} looks", len(photos) + len(reference)) as task:
            tokens[name], seen[name] = [], []
            for some, found in ((photos, tokens), (reference, seen)):
                for photo in some:
                    found[name].append(patch_tokens(encoder, photo))
                    task.advance()
    return tokens, seen, time.perf_counter() - started


def _drawn(
    photos: Sequence[Photo],
    tokens: Mapping[str, Sequence[Tensor]],
    coloured: Mapping[str, Sequence[Coloured]],
    wish: Wish,
) -> dict[str, Figure]:
    """Figures by the name of their file."""
    drawn: dict[str, Figure] = {}
    if "pca" in wish.kinds:
        caption = _caption(coloured, wish, next(iter(coloured)))
        drawn["pca"] = figures.side_by_side(photos, coloured, caption, wish.upsampling)
    if "components" in wish.kinds:
        drawn |= _components("components", photos, coloured, wish, next(iter(coloured)))
    if "norms" in wish.kinds:
        drawn["norms"] = figures.norms(photos, tokens, wish.upsampling)
    if "similarity" in wish.kinds:
        drawn["similarity"] = figures.similarities(photos, tokens, wish.at, wish.upsampling)
    if "matches" in wish.kinds and len(photos) > 1:
        drawn["matches"] = figures.match_lines(photos, tokens)
    return drawn


def _components(
    title: str,
    photos: Sequence[Photo],
    coloured: Mapping[str, Sequence[Coloured]],
    wish: Wish,
    towards: str,
) -> dict[str, Figure]:
    """A figure for each image: a row per encoder."""
    caption = (
        f"{_caption(coloured, wish, towards)}. Single components: not aligned, minimum to maximum"
    )
    return {
        f"{title}_{photo.name}" if len(photos) > 1 else title: figures.components(
            photo,
            {name: images[place] for name, images in coloured.items()},
            caption,
            wish.components,
            wish.upsampling,
        )
        for place, photo in enumerate(photos)
    }


def _caption(coloured: Mapping[str, Sequence[Coloured]], wish: Wish, towards: str) -> str:
    return wish.how.caption(towards if len(coloured) > 1 else None)


def chosen_kinds(only: str | None) -> tuple[str, ...]:
    """`pca,norms` -> kinds of pictures; None: all."""
    if only is None:
        return KINDS
    wanted = tuple(word.strip() for word in only.split(",") if word.strip())
    unknown = [word for word in wanted if word not in KINDS]
    if unknown or not wanted:
        raise InputError(f"--only {only}: the pictures are {', '.join(KINDS)}")
    return wanted
