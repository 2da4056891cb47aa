"""What a run's encoders, and the experts behind them, see in a few photos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

from openeupe.data import BrokenImage, Source, open_source
from openeupe.distill.run import Run
from openeupe.encoders import Encoder, create
from openeupe.encoders.experts import EXPERTS
from openeupe.errors import InputError
from openeupe.loading import load, load_stages
from openeupe.look.photos import Photo, as_photo, patch_tokens, read_photos

PHOTOS = 4
_LARGEST_SIDE = 512


@dataclass
class Seen:
    """Photos, and the patch tokens `[D, h, w]` of each by encoder.

    stages: the encoders that are the run's own stages, or `untrained`. lacking: why there are no
    photos. notes: what else a reader must know.
    """

    photos: Sequence[Photo] = ()
    tokens: Mapping[str, Sequence[Tensor]] = field(default_factory=dict)
    stages: Sequence[str] = ()
    lacking: str = "none were asked for"
    notes: Sequence[str] = ()


def see(
    folder: Path,
    *,
    images: Sequence[Path] = (),
    beside: Sequence[str] = (),
    device: torch.device,
    console: Console,
) -> Seen:
    """Let the experts of a run, its stages, and the encoders `beside` them look at photos.

    Of the teachers only those of the package registry are loaded: others can be gigabytes, and
    are shown when they are named in `beside`.

    Args:
        images: files or folders; by default held-out photos of the recipe's first source.
    """
    run = Run.open(folder)
    side = photo_side(run)
    try:
        photos = read_photos(images, side, PHOTOS) if images else heldout_photos(run, side)
    except InputError as error:
        if images:
            raise
        return Seen(lacking=f"the recipe's photos cannot be read here ({error})")
    stages = load_stages(run)
    experts, notes = _experts(run)
    encoders = {**experts, **stages, **{name: load(name) for name in beside}}
    if not stages:
        notes = [*notes, "No stage has ended yet, so that there is no student to look through."]
    if not encoders:
        return Seen(lacking="no stage has ended yet", notes=notes[:-1])
    tokens = {}
    for name, encoder in encoders.items():
        with console.status(f"{name} looks"):
            tokens[name] = [patch_tokens(encoder.to(device), photo) for photo in photos]
            encoder.cpu()
    return Seen(photos, tokens, list(stages), notes=notes)


def photo_side(run: Run) -> int:
    """Twice the largest side of training, for a finer grid; at most 512 pixels."""
    last = list(run.recipe.stages.values())[-1]
    return min(2 * last.side, _LARGEST_SIDE)


def heldout_photos(run: Run, side: int) -> list[Photo]:
    """The first readable held-out photos of the recipe's first source, or else training photos.

    Raises:
        InputError: if the source cannot be opened here.
    """
    config = run.recipe.data.sources[0]
    try:
        source = open_source(config, "heldout")
    except InputError:
        source = open_source(config, "train")
    return source_photos(source, side)


def source_photos(source: Source, side: int) -> list[Photo]:
    """The first readable photos of a source."""
    photos: list[Photo] = []
    for index in range(len(source)):
        if len(photos) == PHOTOS:
            break
        try:
            photos.append(as_photo(source.read(index), Path(source.name(index)).stem, side))
        except BrokenImage:
            continue
    return photos


def _experts(run: Run) -> tuple[dict[str, Encoder], list[str]]:
    """Teachers that are registry experts, by the names of the recipe; and what was left out."""
    experts: dict[str, Encoder] = {}
    left: list[str] = []
    for stage in run.recipe.stages.values():
        for name, teacher in stage.teachers.items():
            if teacher.encoder in EXPERTS:
                experts.setdefault(
                    name,
                    create(teacher.encoder, pretrained=teacher.pretrained, **teacher.args).eval(),
                )
            elif not teacher.encoder.startswith("stage:"):
                left.append(teacher.encoder)
    left = list(dict.fromkeys(left))
    if not left:
        return experts, []
    example = " ".join(f"--beside {name}" for name in left[:1])
    return experts, [f"Not shown: the teachers {', '.join(left)}. openeupe report {example}"]
