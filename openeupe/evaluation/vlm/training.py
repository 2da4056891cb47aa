"""Train projector and language model in phases."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from itertools import islice
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from openeupe.config import Config
from openeupe.datasets.questions import Question
from openeupe.errors import InputError
from openeupe.evaluation.features import Precision
from openeupe.evaluation.vlm.model import VisionLanguage
from openeupe.evaluation.vlm.prompts import Sentence, Template, Turn, put
from openeupe.heads.fitting import orders
from openeupe.heads.schedule import learning_rates
from openeupe.progress import LOGGED, Progress
from openeupe.seeds import derive_seed

Rows = Sequence[Sequence[Sentence]]
Step = tuple[Tensor | None, Rows]
Ability = Literal["exist", "count", "attribute", "spatial", "read", "choose", "place"]


class Phase(Config):
    """One training phase: AdamW, warm-up, cosine."""

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

    def rates(self, steps: int) -> Iterator[float]:
        """The learning rate of each of so many steps."""
        final = 0.0 if self.decay else self.lr
        return learning_rates(steps, self.lr, round(self.warmup * steps), final_lr=final)


class Lesson(Phase):
    """A training phase on some abilities' questions, the easy ones first. Empty: on all."""

    abilities: tuple[Ability, ...] = ()

    def talks(
        self, questions: Iterable[Question], images: int, template: Template
    ) -> list[list[Turn]]:
        """The lesson's questions of each image, formatted.

        Raises:
            InputError: if there is none, so that the lesson would be empty.
        """
        found: list[list[Turn]] = [[] for _ in range(images)]
        for question in questions:
            if not self.abilities or question.ability in self.abilities:
                found[question.image].append((put(question, template), question.answers[0]))
        if self.abilities and not any(found):
            raise InputError(
                f"phases: no question is of the abilities {', '.join(self.abilities)}: name others"
            )
        return found


class Alignment(Config):
    """A first phase of the projector alone, towards known embeddings. AdamW, warm-up, cosine."""

    steps: int = Field(1500, ge=0)
    batch_size: int = Field(32, ge=1, description="Images a step")
    lr: float = Field(2e-3, gt=0)
    warmup: float = Field(0.05, ge=0, lt=1, description="Share of the steps")
    weight_decay: float = Field(0.05, ge=0)
    empty: float = Field(0.3, gt=0, description="Weight of the token of an empty grid cell")

    def rates(self) -> Iterator[float]:
        """The learning rate of every step."""
        return learning_rates(self.steps, self.lr, round(self.warmup * self.steps))


def align(
    model: VisionLanguage,
    alignment: Alignment,
    tokens: Tensor,
    target: Tensor,
    occupied: Tensor,
    *,
    seed: int,
) -> list[float]:
    """Train the projector to map tokens to embeddings. Returns the loss of every step.

    Args:
        tokens: `[N, D, h, w]`, on the CPU.
        target: `[N, n, width]` embeddings, one for each visual token.
        occupied: `[N, n]` bool: which cells are not empty.
    """
    # Tokens of occupied and of empty cells have weights `1 : empty` over the whole set.
    weight = torch.where(
        occupied, 1 / occupied.sum().clamp(min=1), alignment.empty / (~occupied).sum().clamp(min=1)
    )
    weight = occupied.numel() * weight / (1 + alignment.empty)
    model.requires_grad_(False)
    model.projector.requires_grad_(True)
    trained = list(model.projector.parameters())
    optimizer = torch.optim.AdamW(trained, lr=alignment.lr, weight_decay=alignment.weight_decay)
    losses = []
    with torch.enable_grad():
        batches = orders(len(tokens), alignment.batch_size, alignment.steps, seed)
        for chosen, rate in zip(batches, alignment.rates(), strict=True):
            off = model.visual(tokens[chosen]) - target[chosen].detach().to(model.device)
            loss = (weight[chosen].to(off) * off.square().sum(-1)).mean()
            loss.backward()
            optimizer.param_groups[0]["lr"] = rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
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
    progress: Progress = LOGGED,
) -> list[float]:
    """Train `model` in place; returns the loss of every step.

    Args:
        batches: (patch tokens of the rows that have an image, rows), `micro_batches` a step.
        precision: "bf16" computes under autocast; weights stay as they are.

    Raises:
        InputError: if the loss is no longer a number.
    """
    model.requires_grad_(False)
    model.projector.requires_grad_(True)
    if phase.train == "all":
        model.language.requires_grad_(True)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        trained, lr=phase.lr, betas=(0.9, phase.beta2), weight_decay=phase.weight_decay
    )
    kind = model.device.type
    half = torch.autocast(kind, torch.bfloat16) if precision == "bf16" else nullcontext()
    left, losses = iter(batches), []
    model.train()
    with (
        torch.enable_grad(),
        progress.task(f"training ({phase.train})", steps) as task,
    ):
        for step, rate in enumerate(phase.rates(steps)):
            total = 0.0
            for tokens, rows in islice(left, micro_batches):
                with half:
                    loss = model.loss(tokens, rows)
                (loss / micro_batches).backward()
                total += loss.item() / micro_batches
            if not math.isfinite(total):
                raise InputError(
                    f"the loss of phase {phase.train} became {total} at step {step}: lower its lr"
                )
            torch.nn.utils.clip_grad_norm_(trained, phase.clip)
            optimizer.param_groups[0]["lr"] = rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            losses.append(total)
            task.advance()
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
    progress: Progress = LOGGED,
) -> list[float]:
    """Train on tokens computed once. Several questions of an image share its visual tokens.

    Args:
        tokens: `[N, D, h, w]`, on the CPU.
        talks: for each image its (question, answer)s, each one a conversation of its own.
        packed: questions of an image that a step takes, drawn again each time.

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
        for chosen in orders(len(usable), phase.batch_size, steps, seed):
            images = [usable[k] for k in chosen]
            rows = []
            for image in images:
                order = torch.randperm(len(talks[image]), generator=draw)[:packed]
                rows.append([made[talks[image][k]] for k in order.tolist()])
            yield tokens[images].float(), rows

    return fit(model, phase, steps, batches(), precision=precision, progress=progress)
