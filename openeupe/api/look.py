"""See what encoders see in images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch

from openeupe.config import check_settings
from openeupe.distillation.run_folder import Run, load_stages
from openeupe.distributed import one_device
from openeupe.encoders import Encoder, load
from openeupe.encoders.resolver import Written
from openeupe.encoders.run_layout import is_run
from openeupe.errors import InputError
from openeupe.progress import LOGGED, Progress
from openeupe.visualization import pictures
from openeupe.visualization.colours import Axes, Colouring, Mask
from openeupe.visualization.config import LookConfig
from openeupe.visualization.demo import build
from openeupe.visualization.images import NamedImage, read_images, read_mask, unused_name
from openeupe.visualization.pictures import KINDS, Looked, Wish

_REFERENCE_IMAGES = 64  # at most: a set's axes change little beyond

Encoders = Written | Sequence[Written] | Mapping[str, Written]


def look(
    encoders: Encoders,
    images: str | Path | Sequence[str | Path],
    out: str | Path = "looks",
    *,
    device: str | torch.device | None = None,
    progress: Progress = LOGGED,
    **settings: Any,
) -> Looked:
    """Draw what encoders see in images: colours, components, norms, similarities, matches.

    A run folder among the encoders also gets a picture of its students, stage by stage.

    Example:
        >>> import openeupe
        >>> seen = openeupe.look("raw_pixels", "photos", only="pca", resolution=64, limit=2)
        >>> [file.name for file in seen.files]
        ['pca.png']

    Args:
        encoders: one or more, as `openeupe.load` takes them, or a mapping of the names that
            captions show.
        images: image files and folders of images.
        out: folder for the pictures.
        device: of the encoders; default: the GPU if there is one.
        progress: follows the work; default: the logger `openeupe`.
        **settings: those of `LookConfig`, such as `only="pca,norms"` or `axes="batch"`.

    Returns:
        The files, and the colours with their shares of variance.

    Raises:
        InputError: in one line, for a missing image or a setting that does not fit.
    """
    config = check_settings(LookConfig, "look", "", settings)
    given = [images] if isinstance(images, str | Path) else images
    shown = read_images([Path(path) for path in given], config.resolution, config.limit)
    named = _named(encoders)
    places = [Path(one) for one in named.values() if not isinstance(one, Encoder)]
    runs = [place for place in places if is_run(place)]
    _check_only(config, len(shown), runs)
    how, reference = _colouring(config, len(shown))
    kinds = config.only or KINDS
    on = one_device(device)
    return pictures.draw(
        {name: load(source).to(on) for name, source in named.items()},
        shown,
        Path(out),
        Wish(kinds, how, config.patch, config.components, config.upsampling),
        reference=reference,
        stages=_stages(runs, on) if "stages" in kinds else {},
        progress=progress,
    )


def demo(
    encoders: Encoders,
    *,
    resolution: int = 512,
    port: int = 7860,
    device: str | torch.device | None = None,
) -> None:
    """Serve a local page that compares encoders on uploaded images.

    It is served until the program is interrupted, to this machine only. Needs gradio:
    `pip install 'openeupe[demo]'`.

    Example:
        >>> import openeupe
        >>> openeupe.demo(["runs/mine", "efficientnet_lite0"])  # doctest: +SKIP

    Args:
        encoders: as `look` takes them.
        resolution: long side of the images in pixels.
        port: where the page is served.
        device: of the encoders; default: the GPU if there is one.

    Raises:
        InputError: in one line, if gradio is not installed or an encoder cannot be loaded.
    """
    on = one_device(device)
    loaded = {name: load(source).to(on) for name, source in _named(encoders).items()}
    build(loaded, resolution).launch(server_name="127.0.0.1", server_port=port, share=False)


def _named(encoders: Encoders) -> dict[str, Written]:
    """Encoders by the names that captions show."""
    if isinstance(encoders, Mapping):
        return dict(encoders)
    named: dict[str, Written] = {}
    for one in [encoders] if isinstance(encoders, str | Path | Encoder) else encoders:
        named[unused_name(one.name, named) if isinstance(one, Encoder) else str(one)] = one
    return named


def _check_only(config: LookConfig, images: int, runs: Sequence[Path]) -> None:
    if "matches" in (config.only or ()) and images < 2:
        raise InputError("only matches: they are drawn between two images: give another one")
    if "stages" in (config.only or ()) and not runs:
        raise InputError("only stages: they are drawn of a run: name its folder")


def _colouring(config: LookConfig, images: int) -> tuple[Colouring, list[NamedImage]]:
    """Colour settings, and the reference images that axes are fitted on."""
    own = config.axes in ("image", "batch")
    if not own and not Path(config.axes).is_dir():
        raise InputError(f"axes {config.axes}: use image, batch, or a folder of images")
    reference = (
        [] if own else read_images([Path(config.axes)], config.resolution, _REFERENCE_IMAGES)
    )
    plain = config.mask in ("none", "first")
    mask = config.mask if plain else [read_mask(Path(config.mask))] * images
    axes = config.axes if own else "reference"
    how = Colouring(cast(Axes, axes), config.range, cast(Mask, mask), config.align)
    return how, reference


def _stages(runs: Sequence[Path], device: torch.device) -> dict[str, dict[str, Encoder]]:
    """Students of each run's stages, by the run's folder name.

    Runs of one folder name are numbered.
    """
    stages: dict[str, dict[str, Encoder]] = {}
    for run in runs:
        students = load_stages(Run.open(run))
        name = unused_name(run.resolve().name, stages)
        stages[name] = {key: encoder.to(device) for key, encoder in students.items()}
    return stages
