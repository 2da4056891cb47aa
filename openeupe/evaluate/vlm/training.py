"""Training in LLaVA-1.5's two phases, on tokens computed once or on LLaVA's own files."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from pydantic import Field
from rich.console import Console
from rich.progress import Progress
from safetensors.torch import load_file, save_file
from torch import Tensor

from openeupe.config import Config
from openeupe.data import BrokenImage, Question, decode, derive_seed
from openeupe.data.ahead import batched_ahead
from openeupe.encoders import Encoder
from openeupe.errors import InputError
from openeupe.evaluate.features import Precision, fitting_side
from openeupe.evaluate.results import settings_hash
from openeupe.evaluate.vlm.language import load_language
from openeupe.evaluate.vlm.model import Form, VisionLanguage
from openeupe.evaluate.vlm.prompts import Sentence, Template, Turn, put

Rows = Sequence[Sequence[Sentence]]
Step = tuple[Tensor | None, Rows]


class Phase(Config):
    """One phase: what is trained, for how long, how fast. AdamW, warm-up, cosine."""

    train: Literal["projector", "all"] = Field(
        description="The projector, or the language model as well; the encoder never"
    )
    lr: float = Field(gt=0)
    batch_size: int = Field(ge=1, description="Images a step")
    steps: int | None = Field(None, ge=0, description="Default: as the epochs make")
    epochs: float = Field(1.0, gt=0)
    warmup: float = Field(0.03, ge=0, lt=1, description="Share of the steps")
    decay: bool = Field(True, description="Cosine to 0 after the warm-up; false: the rate stays")
    weight_decay: float = Field(0.0, ge=0)
    beta2: float = Field(0.999, gt=0, lt=1, description="Of AdamW; beta1 is 0.9")
    clip: float = Field(1.0, gt=0, description="Largest norm of the gradient")
    template: Template | None = Field(None, description="Default: the one questions are put in")

    def length(self, count: int) -> int:
        """Number of steps over `count` images."""
        if self.steps is not None:
            return self.steps
        return max(math.ceil(self.epochs * count / self.batch_size), 1)


class Lesson(Phase):
    """A phase on the questions of some abilities only, the easy ones first. Empty: on all."""

    abilities: tuple[str, ...] = ()

    def talks(
        self, questions: Iterable[Question], images: int, template: Template
    ) -> list[list[Turn]]:
        """The lesson's questions of each of so many images, as they are put."""
        found: list[list[Turn]] = [[] for _ in range(images)]
        for question in questions:
            if not self.abilities or question.ability in self.abilities:
                found[question.image].append((put(question, template), question.answers[0]))
        return found


class Alignment(Config):
    """A first phase of the projector alone, towards known embeddings. AdamW, warm-up, cosine."""

    steps: int = Field(1500, ge=0)
    batch_size: int = Field(32, ge=1, description="Images a step")
    lr: float = Field(2e-3, gt=0)
    warmup: float = Field(0.05, ge=0, lt=1, description="Share of the steps")
    weight_decay: float = Field(0.05, ge=0)
    empty: float = Field(0.3, gt=0, description="Weight of a token that nothing is said of")


def align(
    model: VisionLanguage,
    alignment: Alignment,
    tokens: Tensor,
    wanted: Tensor,
    spoken: Tensor,
    *,
    seed: int,
) -> list[float]:
    """Train the projector to map tokens to embeddings; returns the loss of every step.

    Args:
        tokens: `[N, D, h, w]`, on the CPU.
        wanted: `[N, n, width]` embeddings, one for each visual token.
        spoken: `[N, n]` bool: which of them say something.
    """
    # Tokens that say something, then the others, weigh `1 : empty` over the whole set.
    weight = torch.where(
        spoken, 1 / spoken.sum().clamp(min=1), alignment.empty / (~spoken).sum().clamp(min=1)
    )
    weight = spoken.numel() * weight / (1 + alignment.empty)
    model.requires_grad_(False)
    model.projector.requires_grad_(True)
    trained = list(model.projector.parameters())
    optimizer = torch.optim.AdamW(trained, lr=alignment.lr, weight_decay=alignment.weight_decay)
    schedule = _schedule(optimizer, alignment.steps, alignment.warmup)
    losses = []
    with torch.enable_grad():
        for chosen in _orders(len(tokens), alignment.batch_size, alignment.steps, seed):
            off = model.visual(tokens[chosen]) - wanted[chosen].detach().to(model.device)
            loss = (weight[chosen].to(off) * off.square().sum(-1)).mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            schedule.step()
            losses.append(loss.item())
    model.requires_grad_(False)
    return losses


def fit(
    model: VisionLanguage,
    phase: Phase,
    steps: int,
    batches: Iterable[Step],
    *,
    micro_batches: int = 1,
    precision: Precision = "fp32",
    console: Console | None = None,
) -> list[float]:
    """Train `model` in place; returns the loss of every step.

    Args:
        batches: (patch tokens of the rows that have an image, rows), `micro_batches` a step.
        precision: "bf16" computes under autocast; weights stay as they are.
    """
    model.requires_grad_(False)
    model.projector.requires_grad_(True)
    if phase.train == "all":
        model.language.requires_grad_(True)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        trained, lr=phase.lr, betas=(0.9, phase.beta2), weight_decay=phase.weight_decay
    )
    schedule = _schedule(optimizer, steps, phase.warmup, phase.decay)
    kind = model.device.type
    half = torch.autocast(kind, torch.bfloat16) if precision == "bf16" else nullcontext()
    left, losses = iter(batches), []
    model.train()
    with (
        torch.enable_grad(),
        Progress(console=console or Console(quiet=True), transient=True) as progress,
    ):
        task = progress.add_task(f"training ({phase.train})", total=steps)
        for _ in range(steps):
            total = 0.0
            for tokens, rows in islice(left, micro_batches):
                with half:
                    loss = model.loss(tokens, rows)
                (loss / micro_batches).backward()
                total += loss.item() / micro_batches
            torch.nn.utils.clip_grad_norm_(trained, phase.clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            schedule.step()
            losses.append(total)
            progress.advance(task)
    model.requires_grad_(False)
    model.eval()
    return losses


def fit_cached(
    model: VisionLanguage,
    phase: Phase,
    tokens: Tensor,
    talks: Sequence[Sequence[Turn]],
    *,
    packed: int,
    seed: int,
    precision: Precision = "fp32",
    console: Console | None = None,
) -> list[float]:
    """Train on tokens computed once; several questions of an image share its visual tokens.

    Args:
        tokens: `[N, D, h, w]`, on the CPU.
        talks: for each image its (question, answer)s, each one a conversation of its own.
        packed: questions of an image that a step takes, drawn anew each time.

    Returns:
        The loss of every step; nothing if there is no question.
    """
    count = model.image_tokens(tokens)
    made: dict[Turn, Sentence] = {}  # the same words are asked about many images
    for turn in {turn for turns in talks for turn in turns}:
        made[turn] = model.sentence([turn], count, phase.template)
    usable = [k for k, turns in enumerate(talks) if turns]
    if not usable:
        return []
    steps = phase.length(len(usable))

    def batches() -> Iterator[Step]:
        draw = torch.Generator().manual_seed(derive_seed(seed, "questions"))
        for chosen in _orders(len(usable), phase.batch_size, steps, seed):
            images = [usable[k] for k in chosen]
            rows = []
            for image in images:
                order = torch.randperm(len(talks[image]), generator=draw)[:packed]
                rows.append([made[talks[image][k]] for k in order.tolist()])
            yield tokens[images].float(), rows

    return fit(model, phase, steps, batches(), precision=precision, console=console)


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
    device: torch.device | str = "cpu",
    console: Console | None = None,
) -> VisionLanguage:
    """Train on LLaVA's own files and save to `folder` (`VisionLanguage.load`, lmms-eval).

    Features are computed on the fly, on one device. The projector of the first phase is kept in
    `folder`: a run that is interrupted later starts again with the second phase.

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
    if form.side is None:
        form = form.model_copy(update={"side": fitting_side(encoder, encoder.resolution)})
    vlm = VisionLanguage(model, tokenizer, encoder.patch_dim, form, encoder=encoder, seed=seed)
    vlm.to(device)
    if settings.recompute:
        _recompute(model, True)
    facts = {**settings.model_dump(mode="json"), "language": str(language), "seed": seed}
    kept = folder / f"aligned-{settings_hash(facts)}.safetensors"
    if kept.is_file():
        vlm.load_state_dict(load_file(kept), strict=False)
    else:
        _fit_llava(vlm, settings.align, talks[0], align[1], settings, seed, console)
        folder.mkdir(parents=True, exist_ok=True)
        save_file(vlm.seeing(), kept)
    _fit_llava(vlm, settings.tune, talks[1], tune[1], settings, seed, console)
    if settings.recompute:
        _recompute(model, False)
    vlm.save(folder)
    kept.unlink()
    return vlm


def read_llava(file: Path) -> list[tuple[str | None, list[Turn]]]:
    """(image path or None, turns) of each entry of a LLaVA JSON file.

    Raises:
        InputError: naming the entry that is not of this form.
    """
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read as JSON ({error}): check the file") from error
    found = []
    for number, entry in enumerate(entries):
        try:
            said = [(part["from"], part["value"]) for part in entry["conversations"]]
            if said and said[0][0] != "human":
                said = said[1:]
            pairs = list(zip(said[::2], said[1::2], strict=False))
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


def _fit_llava(
    model: VisionLanguage,
    phase: Phase,
    talks: Sequence[tuple[str | None, list[Turn]]],
    root: Path,
    settings: Llava,
    seed: int,
    console: Console | None,
) -> list[float]:
    steps = phase.length(len(talks))
    micro = min(settings.micro_batch, phase.batch_size)
    if phase.batch_size % micro:
        raise InputError(f"batch_size {phase.batch_size} is not a multiple of micro_batch {micro}")
    order = [k for batch in _orders(len(talks), phase.batch_size, steps, seed) for k in batch]

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
                limit = settings.max_length
                rows.append([Sentence(one.ids[:limit], one.labels[:limit])])
            yield tokens, rows

    return fit(
        model,
        phase,
        steps,
        batches(),
        micro_batches=phase.batch_size // micro,
        precision=settings.precision,
        console=console,
    )


def _recompute(language: Any, on: bool) -> None:
    """Activation checkpointing, which transformers 5 renamed."""
    end = "enable" if on else "disable"
    old = getattr(language, f"gradient_checkpointing_{end}")
    switch = getattr(language, f"activation_checkpointing_{end}", old)
    switch(*([{"use_reentrant": False}] if on else []))


def _schedule(
    optimizer: torch.optim.Optimizer, steps: int, warmup: float, decay: bool = True
) -> torch.optim.lr_scheduler.LambdaLR:
    """Linear warm-up over this share of the steps, then cosine to 0 (or the rate stays)."""
    first = round(warmup * steps)

    def rate(step: int) -> float:
        if step < first:
            return (step + 1) / (first + 1)
        if not decay:
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * (step - first) / max(steps - first, 1)))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, rate)


def _orders(count: int, batch_size: int, steps: int, seed: int) -> Iterator[list[int]]:
    """`steps` batches of indices: every index once, in random order, before any comes again."""
    draw = torch.Generator().manual_seed(derive_seed(seed, "order"))
    queue: list[int] = []
    for _ in range(steps):
        while len(queue) < batch_size:
            queue += torch.randperm(count, generator=draw).tolist()
        yield queue[:batch_size]
        queue = queue[batch_size:]
