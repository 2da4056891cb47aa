"""LLaVA-1.5's original training in two phases."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from pydantic import Field
from safetensors.torch import load_file, save_file

from openeupe.config import Config
from openeupe.data import BrokenImage, decode
from openeupe.data.ahead import batched_ahead
from openeupe.encoders import Encoder
from openeupe.errors import InputError
from openeupe.evaluation.features import Precision, fitting_resolution
from openeupe.evaluation.vlm.language import LanguageModel, language_identity, load_language
from openeupe.evaluation.vlm.model import Form, VisionLanguage
from openeupe.evaluation.vlm.prompts import Sentence, Turn
from openeupe.evaluation.vlm.training import Phase, Step, fit
from openeupe.files import durable
from openeupe.heads.fitting import orders
from openeupe.identity import (
    encoder_identity,
    facts_identity,
    file_identity,
    files_identity,
    settings_identity,
)
from openeupe.plain_json import parse_json
from openeupe.progress import LOGGED, Progress


class Llava(Config):
    """LLaVA-1.5's training (paper C.2); both phases one epoch."""

    align: Phase = Phase(train="projector", lr=1e-3, batch_size=256, template="plain")
    tune: Phase = Phase(train="all", lr=2e-5, batch_size=128)
    form: Form = Form()
    max_length: int = Field(2048, ge=1, description="Tokens of a conversation, visual ones too")
    micro_batch: int = Field(8, ge=1, description="Images at a time; gradients add up")
    precision: Precision = "bf16"
    recompute: bool = Field(True, description="Recompute activations: less memory, a third slower")
    workers: int = Field(8, ge=1, description="Decoding threads")


def train_llava(
    encoder: Encoder,
    language: str | Path,
    align: tuple[Path, Path],
    tune: tuple[Path, Path],
    folder: Path,
    settings: Llava | None = None,
    *,
    seed: int = 0,
    progress: Progress = LOGGED,
) -> VisionLanguage:
    """Train on LLaVA's own files and save to `folder` (`VisionLanguage.load`, lmms-eval).

    Features are computed on the fly, on the encoder's device. The projector of the first phase is
    saved in `folder`, so that an interrupted run resumes with the second phase.

    Args:
        language: as `load_language`.
        align, tune: (JSON file of conversations, folder that its image paths start from) of the
            first and second phase.

    Raises:
        InputError: if a file is not of LLaVA's form, or an image is missing or broken.
    """
    settings = settings or Llava()
    talks = read_llava(align[0]), read_llava(tune[0])
    model, tokenizer = load_language(language)
    form = settings.form
    if form.resolution is None:
        form = form.model_copy(
            update={"resolution": fitting_resolution(encoder, encoder.resolution)}
        )
    vlm = VisionLanguage(model, tokenizer, encoder.patch_dim, form, encoder=encoder, seed=seed)
    vlm.to(encoder.mean.device)
    if settings.recompute:
        _recompute(model, True)
    facts = {
        **settings.model_dump(mode="json"),
        "form": form.model_dump(mode="json"),
        "encoder": encoder_identity(encoder),
        "language": language_identity(language),
        "data": conversations_identity(*align),
        "seed": seed,
    }
    kept = folder / f"aligned-{settings_identity(facts)}.safetensors"
    if kept.is_file():
        vlm.see_by(load_file(kept), kept)
    else:
        _fit_llava(vlm, settings.align, talks[0], align[1], settings, seed, progress)
        folder.mkdir(parents=True, exist_ok=True)
        with durable(kept) as partial:
            save_file(vlm.seeing(), partial)
    _fit_llava(vlm, settings.tune, talks[1], tune[1], settings, seed, progress)
    if settings.recompute:
        _recompute(model, False)
    vlm.save(folder)
    kept.unlink(missing_ok=True)
    return vlm


def read_llava(file: Path) -> list[tuple[str | None, list[Turn]]]:
    """(image path or None, turns) of each entry of a LLaVA JSON file.

    Raises:
        InputError: naming the entry that is not of this form.
    """
    try:
        entries = parse_json(file.read_bytes())
        if not isinstance(entries, list):
            raise ValueError("it is no list of conversations")
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read as JSON ({error}): check the file") from error
    found = []
    for number, entry in enumerate(entries):
        try:
            parts = [(part["from"], part["value"]) for part in entry["conversations"]]
            if parts and parts[0][0] != "human":
                parts = parts[1:]
            pairs = list(zip(parts[::2], parts[1::2], strict=False))
            turns = [(question[1], answer[1]) for question, answer in pairs if answer[1]]
            if not turns:
                raise ValueError("no answer")
            found.append((entry.get("image"), turns))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                f"{file}: entry {number} is no conversation "
                '({"image": ..., "conversations": [{"from": ..., "value": ...}]}): correct it'
            ) from error
    if not found:
        raise InputError(f"{file} holds no conversations: check the file")
    return found


def conversations_identity(file: Path, images: Path) -> str:
    """Identity of a JSON file of conversations and of its images."""
    named = dict.fromkeys(image for image, _ in read_llava(file) if image is not None)
    return facts_identity(
        file_identity(file), files_identity(images, (images / name for name in named))
    )


def _fit_llava(
    model: VisionLanguage,
    phase: Phase,
    talks: Sequence[tuple[str | None, list[Turn]]],
    root: Path,
    settings: Llava,
    seed: int,
    progress: Progress,
) -> list[float]:
    steps = phase.length(len(talks))
    micro = min(settings.micro_batch, phase.batch_size)
    if phase.batch_size % micro:
        raise InputError(f"batch_size {phase.batch_size} is not a multiple of micro_batch {micro}")
    order = [k for batch in orders(len(talks), phase.batch_size, steps, seed) for k in batch]

    def read(index: int) -> Any:
        name = talks[index][0]
        try:
            return (None if name is None else decode(root / name, name)), index
        except BrokenImage as error:
            raise InputError(f"{error} (in {root}): replace the file") from None

    def batches() -> Iterator[Step]:
        for part in batched_ahead(read, order, micro, settings.workers):
            images: list[Image.Image] = [image for image, _ in part if image is not None]
            tokens = model.look(images) if images else None
            count = model.image_tokens(tokens) if tokens is not None else 0
            rows = []
            for image, index in part:
                one = model.sentence(
                    talks[index][1], count if image is not None else 0, phase.template
                )
                if one.prefix >= (limit := settings.max_length):
                    raise InputError(
                        f"max_length {limit} leaves no room behind the image, which ends at token "
                        f"{one.prefix}: raise it (LLaVA-1.5 has 2048)"
                    )
                rows.append([Sentence(one.ids[:limit], one.labels[:limit])])
            yield tokens, rows

    return fit(
        model,
        phase,
        steps,
        batches(),
        micro_batches=phase.batch_size // micro,
        precision=settings.precision,
        progress=progress,
    )


def _recompute(language: LanguageModel, on: bool) -> None:
    """Activation checkpointing, which transformers 5 renamed."""
    end = "enable" if on else "disable"
    old = getattr(language, f"gradient_checkpointing_{end}")
    switch = getattr(language, f"activation_checkpointing_{end}", old)
    switch(*([{"use_reentrant": False}] if on else []))
