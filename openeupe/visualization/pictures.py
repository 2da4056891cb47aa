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
from openeupe.visualization.images import NamedImage, patch_tokens

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
        images: names of the images.
        coloured: the colours and measures of `pca.png`, by encoder and image.
    """

    files: list[Path]
    forward_s: float
    images: list[str]
    coloured: dict[str, list[Coloured]]

    def lines(self) -> list[str]:
        """Explained variance and coherence of each encoder's colours of each image."""
        return [
            f"{name}, {image}: {figures.variance(one)}, {figures.extent(one)}"
            for name, coloured in self.coloured.items()
            for image, one in zip(self.images, coloured, strict=True)
        ]


def draw(
    encoders: Mapping[str, Encoder],
    images: Sequence[NamedImage],
    folder: Path,
    wish: Wish | None = None,
    *,
    reference: Sequence[NamedImage] = (),
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
    tokens, seen, forward_s = _look(encoders, images, reference, progress)
    with progress.task("drawing", 1):
        coloured = colour(tokens, wish.how, seen)
        drawn = _drawn(images, tokens, coloured, wish)
    for run, students in (stages or {}).items():
        staged, staged_reference, seconds = _look(students, images, reference, progress)
        forward_s += seconds
        last = list(staged)[-1]  # the others' colours are turned towards its
        rows = colour({last: staged[last], **staged}, wish.how, staged_reference)
        rows = {name: rows[name] for name in staged}
        drawn |= _components(f"stages_{run}", images, rows, wish, last)
    files = []
    with progress.task("writing", len(drawn)) as task:
        for name, figure in drawn.items():
            files.append(figures.save(figure, folder / f"{name}.png"))
            task.advance()
    return Looked(files, forward_s, [image.name for image in images], coloured)


def _look(
    encoders: Mapping[str, Encoder],
    images: Sequence[NamedImage],
    reference: Sequence[NamedImage],
    progress: Progress,
) -> tuple[dict[str, list[Tensor]], dict[str, list[Tensor]], float]:
    """Tokens of the images and of the reference set by encoder, and seconds."""
    tokens: dict[str, list[Tensor]] = {}
    seen: dict[str, list[Tensor]] = {}
    started = time.perf_counter()
    for name, encoder in encoders.items():
        with progress.task(f"{name} looks", len(images) + len(reference)) as task:
            tokens[name], seen[name] = [], []
            for some, found in ((images, tokens), (reference, seen)):
                for image in some:
                    found[name].append(patch_tokens(encoder, image))
                    task.advance()
    return tokens, seen, time.perf_counter() - started


def _drawn(
    images: Sequence[NamedImage],
    tokens: Mapping[str, Sequence[Tensor]],
    coloured: Mapping[str, Sequence[Coloured]],
    wish: Wish,
) -> dict[str, Figure]:
    """Figures by the name of their file."""
    drawn: dict[str, Figure] = {}
    if "pca" in wish.kinds:
        caption = _caption(coloured, wish, next(iter(coloured)))
        drawn["pca"] = figures.side_by_side(images, coloured, caption, wish.upsampling)
    if "components" in wish.kinds:
        drawn |= _components("components", images, coloured, wish, next(iter(coloured)))
    if "norms" in wish.kinds:
        drawn["norms"] = figures.norms(images, tokens, wish.upsampling)
    if "similarity" in wish.kinds:
        drawn["similarity"] = figures.similarities(images, tokens, wish.at, wish.upsampling)
    if "matches" in wish.kinds and len(images) > 1:
        drawn["matches"] = figures.match_lines(images, tokens)
    return drawn


def _components(
    title: str,
    images: Sequence[NamedImage],
    coloured: Mapping[str, Sequence[Coloured]],
    wish: Wish,
    towards: str,
) -> dict[str, Figure]:
    """A figure for each image: a row per encoder."""
    caption = (
        f"{_caption(coloured, wish, towards)}. Single components: not aligned, minimum to maximum"
    )
    return {
        f"{title}_{image.name}" if len(images) > 1 else title: figures.components(
            image,
            {name: each[place] for name, each in coloured.items()},
            caption,
            wish.components,
            wish.upsampling,
        )
        for place, image in enumerate(images)
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
        raise InputError(f"only {only}: the pictures are {', '.join(KINDS)}")
    return wanted
