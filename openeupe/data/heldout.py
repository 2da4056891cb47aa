"""Opening sources together: what one of them holds out may be in no other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from openeupe.data.config import SourceConfig
from openeupe.data.folders import FolderSource, is_heldout
from openeupe.data.manifest import ManifestSource
from openeupe.data.recorded import content
from openeupe.data.sources import Source, open_source
from openeupe.data.string_array import printable
from openeupe.errors import InputError

_COMPARED = 1024  # held-out images whose contents are looked for in the other sources


def open_sources(configs: Sequence[SourceConfig]) -> list[Source]:
    """Open the sources of training together: none may hold what another one holds out.

    Raises:
        InputError: as `open_source`, and if a held-out image is in another source.
    """
    sources = [open_source(config) for config in configs]
    check_heldout(configs, sources)
    return sources


def check_heldout(configs: Sequence[SourceConfig], sources: Sequence[Source]) -> None:
    """Raise `InputError` if training would see a held-out image.

    Folders and manifests are compared by the places of all their files. All sources, tar shards
    and Hugging Face datasets among them, are searched for the contents of up to 1,024 held-out
    images that are evenly spaced: only images of the same size in bytes need to be read.
    """
    for config, source in zip(configs, sources, strict=True):
        if not config.heldout or not isinstance(source, FolderSource):
            continue
        others = [pair for pair in zip(configs, sources, strict=True) if pair[1] is not source]
        for other_config, other in others:
            if isinstance(other, FolderSource | ManifestSource):
                _check_places(config, source, other_config, other)
        _check_contents(config, source, others)


def _check_places(
    config: SourceConfig,
    source: FolderSource,
    other_config: SourceConfig,
    other: FolderSource | ManifestSource,
) -> None:
    root = f"{source.root.resolve().as_posix().rstrip('/')}/"
    for place in other.places():
        inside = place.removeprefix(root)
        if inside != place and is_heldout(inside, config.heldout):
            raise InputError(
                f"data path {other_config.path} holds {printable(place)}, which heldout of "
                f"{config.path} holds out from training: name folders that do not overlap, or "
                "give both the same path and heldout"
            )


def _check_contents(
    config: SourceConfig, source: FolderSource, others: Sequence[tuple[SourceConfig, Source]]
) -> None:
    root = source.root.resolve()
    elsewhere = [
        (other_config, other)
        for other_config, other in others
        if not (isinstance(other, FolderSource) and other.root.resolve() == root)
    ]
    if not elsewhere:
        return
    held = open_source(config, "heldout")
    count = min(len(held), _COMPARED)
    chosen = [number * len(held) // count for number in range(count)]
    known = {content(held, index): index for index in chosen}
    known.pop("", None)  # cannot be read
    sizes = held.sizes()[chosen]
    for other_config, other in elsewhere:
        for index in np.flatnonzero(np.isin(other.sizes(), sizes)).tolist():
            found = known.get(content(other, index))
            if found is not None:
                raise InputError(
                    f"data path {other_config.path} holds {other.name(index)}, the same image as "
                    f"{held.name(found)}, which heldout of {config.path} holds out from training: "
                    "remove it there, or leave out that source"
                )
