"""Save encoders in folders that OpenEUPE, timm or transformers can load."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Literal

from safetensors.torch import save_file

from openeupe import encoders
from openeupe.distillation.student import DISTILLATION, load_heads
from openeupe.encoders import resolve, timm_folder, transformers_folder
from openeupe.encoders.create import is_name
from openeupe.encoders.openeupe_folder import written_whole
from openeupe.encoders.resolver import Written
from openeupe.encoders.run_layout import FINISHED
from openeupe.encoders.sources import Export, File
from openeupe.errors import InputError
from openeupe.files import read_mapping
from openeupe.share.card import card_licence, model_card
from openeupe.share.origin import for_others, origin

Layout = Literal["openeupe", "timm", "transformers"]
_OTHER_FILES = ("heads.safetensors", "statistics.safetensors", DISTILLATION)


def save(
    source: Written,
    folder: Path,
    layout: Layout = "openeupe",
    *,
    licence: str | None = None,
    evaluations: Path | None = None,
) -> Path:
    """Save an encoder with heads and a model card. A saved one there is replaced.

    Args:
        source: what `openeupe.load` takes.
        layout: openeupe (any encoder), timm (timm's networks) or transformers (its DINOv3 classes).
        licence: of the card; default: the strictest teacher's.
        evaluations: folder with results, as `NAME/SUITE`, of encoders that have only a name.

    Raises:
        InputError: if the encoder has no such form, or the folder holds something else.
    """
    resolved = resolve(source)
    if isinstance(resolved, Export):
        raise InputError(f"{source} is an exported file: save the encoder that it was made from")
    encoder, student = resolved.load(), resolved.folder()
    if not is_name(encoder.name):
        raise InputError(f"{source} cannot be saved: {encoder.name!r} could not be made again")
    if student is not None and folder.resolve() == student.resolve():
        raise InputError(f"{folder} is the encoder itself: choose another folder")
    if (folder.parent / FINISHED).is_file() and (folder / DISTILLATION).is_file():
        raise InputError(f"{folder} is the finished student of a run: choose another folder")
    card_origin = origin(source, encoder, evaluations)
    with written_whole(folder) as part:
        opening = None
        if layout == "openeupe":
            encoders.save(encoder, part)
        elif layout == "timm":
            identifier, name = card_licence(card_origin, licence)
            opening = timm_folder.save(encoder, part, name or identifier)
        else:
            transformers_folder.save(encoder, part)
        for file in _OTHER_FILES:
            if student is not None and (student / file).is_file():
                shutil.copyfile(student / file, part / file)
        if info := read_mapping(part / DISTILLATION):
            text = json.dumps(for_others(info), indent=2)
            (part / DISTILLATION).write_text(text, encoding="utf-8")
        if isinstance(resolved, File):
            heads = load_heads(resolved.path)
            state = {f"{t}.{k}": v for t, h in heads.items() for k, v in h.state_dict().items()}
            if state:
                save_file(state, part / "heads.safetensors")
        text = model_card(encoder, card_origin, layout, folder.name, licence, opening)
        (part / "README.md").write_text(text, encoding="utf-8")
    return folder
