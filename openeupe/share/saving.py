"""Folders that other people's programs open with their own one-liners."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Literal

from safetensors.torch import save_file

from openeupe import encoders
from openeupe.distill.run_folder import FINISHED
from openeupe.encoders import timm_folder, transformers_folder
from openeupe.encoders.openeupe_folder import written_whole
from openeupe.errors import InputError
from openeupe.files import read_mapping
from openeupe.loading import load, load_heads
from openeupe.share.card import card_licence, model_card
from openeupe.share.origin import DISTILLATION, for_others, origin, stored_folder

Layout = Literal["openeupe", "timm", "transformers"]
_BESIDE = ("heads.safetensors", "statistics.safetensors", DISTILLATION)


def save(
    source: str, folder: Path, layout: Layout = "openeupe", *, licence: str | None = None
) -> Path:
    """Write an encoder with its heads and a model card, replacing an encoder that lies there.

    Args:
        source: whatever `openeupe.load` takes.
        layout: openeupe (any encoder), timm (timm's networks) or transformers (its DINOv3 classes).
        licence: to publish under; by default what the teachers' licences leave.

    Raises:
        InputError: if the encoder has no such form, or the folder holds something else.
    """
    encoder = load(source)
    student = stored_folder(source)
    if student is not None and folder.resolve() == student.resolve():
        raise InputError(f"{folder} is the encoder itself: choose another folder")
    if (folder.parent / FINISHED).is_file() and (folder / DISTILLATION).is_file():
        raise InputError(f"{folder} is the finished student of a run: choose another folder")
    told = origin(source, student, encoder)
    with written_whole(folder) as part:
        opening = None
        if layout == "openeupe":
            encoders.save(encoder, part)
        elif layout == "timm":
            identifier, name = card_licence(told, licence)
            opening = timm_folder.save(encoder, part, name or identifier)
        else:
            transformers_folder.save(encoder, part)
        for file in _BESIDE:
            if student is not None and (student / file).is_file():
                shutil.copyfile(student / file, part / file)
        if info := read_mapping(part / DISTILLATION):
            text = json.dumps(for_others(info), indent=2)
            (part / DISTILLATION).write_text(text, encoding="utf-8")
        if student is None and Path(source).is_file():
            heads = load_heads(source)
            state = {f"{t}.{k}": v for t, h in heads.items() for k, v in h.state_dict().items()}
            if state:
                save_file(state, part / "heads.safetensors")
        text = model_card(encoder, told, layout, folder.name, licence, opening)
        (part / "README.md").write_text(text, encoding="utf-8")
    return folder
