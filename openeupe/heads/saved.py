"""A fitted head as a folder: head.json and head.safetensors, no code."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from safetensors.torch import save_file

from openeupe.encoders import Encoder
from openeupe.encoders.weights import load_strictly, read_weights
from openeupe.errors import InputError
from openeupe.files import read_mapping, strict_json, vacant
from openeupe.heads.depth import DepthHead, DepthHeadSettings
from openeupe.heads.regions import RegionHead, RegionHeadSettings
from openeupe.heads.segmentation import SegmentationHead, SegmentationHeadSettings
from openeupe.identity import encoder_identity, facts_identity, tensors_identity
from openeupe.placing import partial_folder, take_place
from openeupe.plain_json import Saved, read_checked

FORMAT = 1
_JSON, _WEIGHTS = "head.json", "head.safetensors"
_AGAIN = "fit and save the head again"
Head = SegmentationHead | DepthHead | RegionHead
_Settings = SegmentationHeadSettings | DepthHeadSettings | RegionHeadSettings


class _Description(Saved):
    openeupe_head: int
    settings: Annotated[_Settings, Field(discriminator="kind")]
    encoder: str
    encoder_identity: str
    digest: str

    def digest_with(self, weights: str) -> str:
        facts = self.model_dump(mode="json", exclude={"digest"})
        return facts_identity(facts, weights)


def save_head(head: Head, folder: str | Path, encoder: Encoder) -> Path:
    """Save a head to `folder` atomically, replacing a saved one.

    Args:
        head: the fitted head, on any device.
        encoder: whose tokens it was fitted on; `load_head` accepts no other.

    Raises:
        InputError: if `folder` holds something else, or cannot be written.

    >>> import tempfile
    >>> from openeupe.encoders import create
    >>> encoder = create("raw_pixels")
    >>> head = DepthHead(DepthHeadSettings(width=encoder.patch_dim))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     type(load_head(save_head(head, f"{folder}/depth", encoder), encoder)).__name__
    'DepthHead'
    """
    folder = Path(folder)
    if not vacant(folder) and not _ours(folder):
        raise InputError(f"{folder} holds something else than a saved head: choose another folder")
    weights = {k: v.detach().cpu().contiguous() for k, v in head.state_dict().items()}
    written = _Description(
        openeupe_head=FORMAT,
        settings=head.settings,
        encoder=encoder.name,
        encoder_identity=encoder_identity(encoder),
        digest="",
    )
    digest = written.digest_with(tensors_identity(weights))
    content = {**written.model_dump(mode="json"), "digest": digest}
    try:
        with partial_folder(folder, _ours) as part:
            (part / _JSON).write_text(strict_json(content) + "\n", encoding="utf-8")
            save_file(weights, part / _WEIGHTS)
            take_place(part, folder, _ours)
    except OSError as error:
        raise InputError(
            f"cannot write the head to {folder} ({error.strerror}): free space or choose another"
        ) from error
    return folder


def load_head(folder: str | Path, encoder: Encoder) -> Head:
    """Load a head that `save_head` wrote, in eval mode. It is on the encoder's device.

    Args:
        encoder: must be the one that the head was fitted on, with the same weights.

    Raises:
        InputError: naming the file that is missing, damaged or of another format, or the encoder
            if it is another.
    """
    folder = Path(folder)
    path, weights_path = folder / _JSON, folder / _WEIGHTS
    number = read_mapping(path).get("openeupe_head", FORMAT)
    if number != FORMAT:
        raise InputError(f"{path} has format {number}, this version reads {FORMAT}: {_AGAIN}")
    described = _Description.model_validate(read_checked(path, _Description, _AGAIN))
    weights = read_weights(weights_path, f"head {folder}")
    if described.digest != described.digest_with(tensors_identity(weights)):
        raise InputError(f"{weights_path} does not belong to {path}, or one is damaged: {_AGAIN}")
    if described.encoder_identity != encoder_identity(encoder):
        raise InputError(
            f"{path}: the head was fitted on another encoder ({described.encoder}): give that one, "
            f"or fit the head on {encoder.name}"
        )
    with torch.device("meta"):  # no memory, and no random draws
        head = _built(described.settings)
    found, stated = weights.get("linear.weight", torch.empty(0)).shape, head.linear.weight.shape
    if found != stated:
        raise InputError(
            f"{weights_path}: linear.weight has shape {list(found)}, {path} states "
            f"{list(stated)}: {_AGAIN}"
        )
    head.to_empty(device="cpu")
    load_strictly(head, weights, weights_path, f"head {folder}")
    return head.to(encoder.mean.device).eval()


def _built(settings: _Settings) -> Head:
    if isinstance(settings, SegmentationHeadSettings):
        return SegmentationHead(settings)
    if isinstance(settings, DepthHeadSettings):
        return DepthHead(settings)
    return RegionHead(settings)


def _ours(folder: Path) -> set[str]:
    """Files of a saved head in a folder. Empty where it holds no head."""
    is_head = "openeupe_head" in read_mapping(folder / _JSON)
    return {_JSON, _WEIGHTS} if is_head else set()
