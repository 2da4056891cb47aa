"""Give encoders to other people."""

from __future__ import annotations

from pathlib import Path

from openeupe.api import EVALUATIONS
from openeupe.encoders.resolver import Written
from openeupe.share.push import push as push_folder
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


def push(folder: str | Path, repository: str, *, private: bool = False) -> str:
    """Upload a saved folder to a repository of the Hugging Face hub.

    The repository is created if needed; an encoder that was there before is replaced. The token
    comes from `HF_TOKEN` or `hf auth login`.

    Example:
        >>> import openeupe
        >>> openeupe.push("my-encoder", "me/my-encoder", private=True)  # doctest: +SKIP
        'https://huggingface.co/me/my-encoder'

    Args:
        folder: what `save` wrote.
        repository: OWNER/NAME on the hub.
        private: whether a new repository is visible to its owner only.

    Returns:
        The address of the repository's page.

    Raises:
        InputError: if the folder was not saved for others, or the hub refuses.
    """
    return push_folder(Path(folder), repository, private=private)
