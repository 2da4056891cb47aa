"""Give encoders to other people."""

from __future__ import annotations

from pathlib import Path

from openeupe.api import EVALUATIONS
from openeupe.encoders.resolver import Written
from openeupe.share.saving import Layout
from openeupe.share.saving import save as save_folder


def save(
    encoder: Written,
    folder: str | Path,
    layout: Layout = "openeupe",
    *,
    licence: str | None = None,
) -> Path:
    """Save an encoder as a folder: safetensors, config and a model card.

    The card holds results, recipe, data, and every teacher's licence with what follows from it.

    Example:
        >>> import openeupe
        >>> folder = openeupe.save("untrained:test_resnet", "my-encoder")
        >>> sorted(file.name for file in folder.iterdir())
        ['README.md', 'config.json', 'model.safetensors']

    Args:
        encoder: any that `openeupe.load` takes.
        folder: a new folder, or an encoder's that is replaced.
        layout: the library that can load the folder: openeupe (any encoder), timm (timm's networks)
            or transformers (its DINOv3 classes).
        licence: to publish under, as SPDX; default: what the teachers' licences leave.

    Returns:
        The folder.

    Raises:
        InputError: if the encoder has no such form, or the folder holds something else.
    """
    return save_folder(encoder, Path(folder), layout, licence=licence, evaluations=EVALUATIONS)
