"""Features of a run's encoders and experts on a few images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from openeupe.data import BrokenImage, Source, open_source
from openeupe.distillation.encoder_settings import TeacherConfig
from openeupe.distillation.recipe import Recipe
from openeupe.distillation.run_folder import Run, load_stages
from openeupe.encoders import Encoder, create, load
from openeupe.encoders.experts import EXPERTS
from openeupe.errors import InputError
from openeupe.progress import LOGGED, Progress
from openeupe.visualization.colours import Coloured, Colouring, colour
from openeupe.visualization.images import NamedImage, named_image, patch_tokens, read_images

IMAGES = 4
_LARGEST_RESOLUTION = 512


@dataclass
class Seen:
    """Images, and the patch tokens `[D, h, w]` of each by encoder.

    stages: the encoders that are the run's own stages, or `untrained`. lacking: why there are no
    images. notes: for the reader.
    """

    images: Sequence[NamedImage] = ()
    tokens: Mapping[str, Sequence[Tensor]] = field(default_factory=dict)
    stages: Sequence[str] = ()
    lacking: str = "none were asked for"
    notes: Sequence[str] = ()

    @property
    def first(self) -> str:
        """The encoder that colours are aligned with: an expert, if there is one."""
        names = list(self.tokens)
        return next((name for name in names if name not in self.stages), names[-1])

    @cached_property
    def coloured(self) -> dict[str, list[Coloured]]:
        """Colours of each encoder and image."""
        return colour({self.first: self.tokens[self.first], **self.tokens}, Colouring())

    @property
    def caption(self) -> str:
        """Caption of the colours."""
        return Colouring().caption(self.first if len(self.tokens) > 1 else None)


def see(
    folder: Path,
    *,
    images: Sequence[Path] = (),
    also: Sequence[str] = (),
    device: torch.device,
    progress: Progress = LOGGED,
) -> Seen:
    """Compute tokens of a run's experts, stages and further encoders on images.

    Of the teachers only those of the package registry are loaded: others can be gigabytes, and
    are shown when they are named in `also`.

    Args:
        images: files or folders; by default held-out images of the recipe's first source.
    """
    run = Run.open(folder)
    resolution = shown_resolution(run)
    trained_on = False
    try:
        if images:
            shown = read_images(images, resolution, IMAGES)
        else:
            shown, trained_on = recipe_images(run, resolution)
    except InputError as error:
        if images:
            raise
        return Seen(lacking=f"the recipe's images cannot be read here ({error})")
    if not shown:
        return Seen(lacking="none of the recipe's images can be read")
    stages = load_stages(run)
    experts, notes = _experts(run)
    if trained_on:
        notes.append("No images are held out: the students were trained on these.")
    encoders = {**{f"{k} (teacher)" if k in stages else k: e for k, e in experts.items()}, **stages}
    others = {name: load(name) for name in also}
    encoders |= {f"{k} (also)" if k in encoders else k: e for k, e in others.items()}
    if not encoders:
        return Seen(lacking="no stage has ended yet", notes=notes)
    if not stages:
        notes.append("No stage has ended yet, so that there is no student to look through.")
    tokens: dict[str, list[Tensor]] = {}
    for name, encoder in encoders.items():
        with progress.task(f"{name} looks", len(shown)) as task:
            encoder.to(device)
            tokens[name] = []
            for image in shown:
                tokens[name].append(patch_tokens(encoder, image))
                task.advance()
            encoder.cpu()
    return Seen(shown, tokens, list(stages), notes=notes)


def shown_resolution(run: Run) -> int:
    """Twice the largest resolution of training, for a finer grid. At most 512 pixels."""
    last = list(run.recipe.stages.values())[-1]
    return min(2 * last.largest_resolution, _LARGEST_RESOLUTION)


def recipe_images(run: Run, resolution: int) -> tuple[list[NamedImage], bool]:
    """The first readable images of the recipe's first source. Held-out ones if there are any, else
    training images.

    Returns the images, and whether students were trained on them.

    Raises:
        InputError: if the source cannot be opened here.
    """
    config = run.recipe.data.sources[0]
    try:
        source, trained_on = open_source(config, "heldout"), False
    except InputError:
        source, trained_on = open_source(config, "train"), True
    return shown_images(source, resolution), trained_on


def shown_images(source: Source, resolution: int) -> list[NamedImage]:
    """The first readable images of a source."""
    images: list[NamedImage] = []
    for index in range(len(source)):
        if len(images) == IMAGES:
            break
        try:
            images.append(
                named_image(source.read(index), Path(source.name(index)).stem, resolution)
            )
        except BrokenImage:
            continue
    return images


def frozen_teachers(recipe: Recipe) -> dict[str, TeacherConfig]:
    """Teachers that are not students of the recipe, with unique names."""
    found: dict[str, TeacherConfig] = {}
    known: list[Any] = []
    for stage_name, stage in recipe.stages.items():
        for name, teacher in stage.teachers.items():
            network = (name, teacher.encoder, teacher.pretrained, teacher.args)
            if network in known or teacher.earlier:
                continue
            known.append(network)
            found[f"{name} of {stage_name}" if name in found else name] = teacher
    return found


def _experts(run: Run) -> tuple[dict[str, Encoder], list[str]]:
    """Teachers that are registry experts, by the names of the recipe. Notes on others."""
    experts: dict[str, Encoder] = {}
    left: list[str] = []
    notes: list[str] = []
    for name, teacher in frozen_teachers(run.recipe).items():
        if teacher.encoder not in EXPERTS:
            left.append(teacher.encoder)
            continue
        try:
            made = create(teacher.encoder, pretrained=teacher.pretrained, **teacher.args)
            experts[name] = made.eval()
        except InputError as error:  # a report needs no network
            notes.append(f"Not shown: {error}")
    if left:
        named = ", ".join(dict.fromkeys(left))
        notes.append(f"Not shown: the teachers {named}. Show them with `also`")
    return experts, notes
