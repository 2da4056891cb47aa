"""Make a training set of folders of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from openeupe.config import check_settings
from openeupe.curation import CurateConfig
from openeupe.curation import curate as write_manifest
from openeupe.curation.summary import summary
from openeupe.curation.tars import write_shards
from openeupe.data.manifest import open_manifest
from openeupe.distributed import one_device
from openeupe.encoders import Encoder, load
from openeupe.errors import InputError
from openeupe.files import write_atomically
from openeupe.progress import LOGGED, Progress
from openeupe.report.curation import write_curation

Paths = str | Path | Sequence[str | Path]


@dataclass(frozen=True)
class Curated:
    """A curated training set.

    Attributes:
        manifest: the file that a recipe's `data` takes.
        files: what was written: the manifest, its summary, its page, and shards if asked for.
        about: what the manifest contains about itself: settings, seeds, the encoder, counts.
    """

    manifest: Path
    files: list[Path]
    about: dict[str, Any]

    @property
    def images(self) -> int:
        """Number of images that were looked at."""
        return int(self.about["images"])

    @property
    def kept(self) -> int:
        """Number of images that the set holds."""
        return int(self.about["kept"])

    @property
    def dropped(self) -> dict[str, int]:
        """Number of images that were dropped for each reason."""
        return dict(self.about["dropped"])

    @property
    def unreadable(self) -> dict[str, list[str]]:
        """Images of `against` and of `like` that cannot be read. Copies of the first may remain."""
        return {option: self.about[f"unreadable_{option}"] for option in ("against", "like")}

    def to_json(self) -> dict[str, Any]:
        """As `openeupe curate --json` prints it: `about` without the parents of clusters."""
        values = {key: value for key, value in self.about.items() if key != "parents"}
        if len(self.files) > 3:
            values["shards"] = str(self.files[3])
        return values


def curate(
    folders: Paths,
    out: str | Path,
    *,
    encoder: str | Path | Encoder | None = "efficientnet_lite0",
    against: Paths = (),
    like: Paths = (),
    device: str | torch.device | None = None,
    progress: Progress = LOGGED,
    **settings: Any,
) -> Curated:
    """Drop copies, leaked evaluation images and broken files from image folders. Balance the rest.

    Call it again to resume, or with other settings: scans and embeddings are cached in
    `OUT.work`. Under torchrun all processes share the work.

    Example:
        >>> import openeupe
        >>> made = openeupe.curate("photos", "set.parquet", encoder="raw_pixels", min_resolution=32)
        >>> made.images, made.kept
        (12, 12)
        >>> [file.name for file in made.files]
        ['set.parquet', 'set.md', 'set.html']

    Args:
        folders: folders of images, and tar shards.
        out: the manifest to write, a file ending in `.parquet`.
        encoder: compares images; None: bytes and perceptual hashes alone are compared,
            and nothing is balanced.
        against: folders or shards of evaluation images; images that duplicate these are removed.
        like: folders or shards of a seed set; only the images nearest to it stay.
        device: of the encoder; default: the GPU if there is one.
        progress: follows the work; default: the logger `openeupe`.
        **settings: those of `CurateConfig`, such as `size=1000` or `shards="1GB"`.

    Returns:
        The set. In all processes but the first its summary, page and shards may not be there yet.

    Raises:
        InputError: in one line, for a wrong path or setting, or if no image would be left.
    """
    config = check_settings(CurateConfig, "curate", "", settings)
    if encoder is None and device is not None:
        raise InputError("device has no effect without an encoder: leave it out, or name one")
    manifest = Path(out)
    about = write_manifest(
        _listed(folders),
        manifest,
        None if encoder is None else load(encoder).to(one_device(device)),
        config,
        against=_listed(against),
        like=_listed(like),
        progress=progress,
    )
    if not about:  # of another process than the first, which writes the rest
        return Curated(manifest, [manifest], open_manifest(manifest)[1])
    return Curated(manifest, [manifest, *_companions(manifest, config, progress)], about)


def _companions(manifest: Path, config: CurateConfig, progress: Progress) -> list[Path]:
    """Write summary and page, and shards if asked for."""
    text, page = manifest.with_suffix(".md"), write_curation(manifest)
    write_atomically(text, summary(manifest))
    if config.shards is None:
        return [text, page]
    shards = write_shards(manifest, manifest.with_suffix(".shards"), config.shards, progress)
    return [text, page, shards]


def _listed(paths: Paths) -> list[str | Path]:
    return [paths] if isinstance(paths, str | Path) else list(paths)
