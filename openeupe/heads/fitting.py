"""Fit a head on frozen patch tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from openeupe.data.ahead import batched_ahead
from openeupe.encoders import Tokens
from openeupe.heads.settings import FitSettings
from openeupe.seeds import derive_seed, seeded, shuffled

HeadT = TypeVar("HeadT", bound=nn.Module)
# Patch tokens `[B, D, h, w]` of some images, and targets for the loss.
Batch = tuple[Tensor, tuple[Tensor, ...]]
Loss = Callable[[HeadT, Tensor, tuple[Tensor, ...], int], Tensor]
Sample = Callable[[int, np.random.Generator], tuple[Tensor, Tensor]]


def fit_head(
    make: Callable[[], HeadT],
    batches: Iterable[Batch],
    loss: Loss[HeadT],
    settings: FitSettings,
    *,
    seed: int,
    device: torch.device | str = "cpu",
) -> HeadT:
    """Fit a head with AdamW; returns the last iterate, in eval mode.

    The caller's random state does not change.

    Args:
        make: creates the head; its weights are drawn under `seed`.
        batches: one for each step, on any device.
        loss: (head, tokens, targets, step) -> scalar. Tokens are float32 and on `device`, like
            the targets.
        settings: learning rates, betas, weight decay and clipping. Nothing is selected by scores.
        seed: fixes the initial weights and dropout.

    >>> import torch
    >>> from openeupe.heads.linear import HeadSettings, LinearHead
    >>> tokens = torch.randn(12, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    >>> settings = FitSettings(steps=300, lr=0.05)
    >>> head = fit_head(
    ...     lambda: LinearHead(HeadSettings(width=3), outputs=1),
    ...     cached_batches(tokens, (tokens[:, :1] > 0,), settings, seed=0),
    ...     lambda head, tokens, targets, step: nn.functional.binary_cross_entropy_with_logits(
    ...         head(tokens), targets[0].float()
    ...     ),
    ...     settings,
    ...     seed=0,
    ... )
    >>> bool(((head(tokens) > 0) == (tokens[:, :1] > 0)).float().mean() > 0.9)
    True
    """
    device = torch.device(device)
    clip = settings.clip_norm()
    with seeded(derive_seed(seed, "probe"), device), torch.enable_grad():
        head = make().to(device)
        optimizer = torch.optim.AdamW(head.parameters(), weight_decay=settings.weight_decay)
        for step, (rate, batch) in enumerate(zip(settings.rates(), batches, strict=True)):
            tokens, targets = batch
            given = tuple(target.to(device, non_blocking=True) for target in targets)
            value = loss(head, tokens.to(device).float(), given, step)
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            if clip is not None:
                nn.utils.clip_grad_norm_(head.parameters(), clip)
            for group in optimizer.param_groups:
                group["lr"], group["betas"] = rate, settings.betas_at(step)
            optimizer.step()
    return head.eval()


def cached_batches(
    tokens: Tensor, targets: tuple[Tensor, ...], settings: FitSettings, seed: int
) -> Iterator[Batch]:
    """Batches of tokens that were computed once for each image: fast, without augmentation.

    Args:
        tokens: `[N, D, h, w]` float16 or float32, on the CPU.
        targets: each `[N, ...]`.
        seed: fixes the order of the images.
    """
    for chosen in orders(len(tokens), settings.batch_size, settings.steps, seed):
        yield tokens[chosen], tuple(target[chosen] for target in targets)


def augmented_batches(
    count: int,
    sample: Sample,
    encode: Callable[[Tensor], Tokens],
    workers: int,
    settings: FitSettings,
    seed: int,
) -> Iterator[Batch]:
    """Batches for which each image is augmented and encoded again.

    Everything random is a function of `seed`, however many threads decode.

    Args:
        count: number of images.
        sample: (index, random generator) -> uint8 pixels `[3, H, W]` and labels `[H, W]`.
        encode: uint8 pixels `[B, 3, H, W]` -> tokens, without gradients.
        workers: threads that decode and augment.
    """

    def read(number: int) -> tuple[Tensor, Tensor]:
        epoch, place = divmod(number, count)
        index = int(shuffled(place, count, derive_seed(seed, "order", epoch)))
        return sample(index, np.random.default_rng(derive_seed(seed, "augment", number)))

    numbers = range(settings.steps * settings.batch_size)
    for batch in batched_ahead(read, numbers, settings.batch_size, workers):
        pixels, labels = (torch.stack(part) for part in zip(*batch, strict=True))
        yield encode(pixels).patches, (labels,)


def orders(count: int, batch_size: int, steps: int, seed: int) -> Iterator[list[int]]:
    """`steps` batches of indices: every index once, in random order, before any comes again."""
    draw = torch.Generator().manual_seed(derive_seed(seed, "order"))
    queue: list[int] = []
    for _ in range(steps):
        while len(queue) < batch_size:
            queue += torch.randperm(count, generator=draw).tolist()
        yield queue[:batch_size]
        queue = queue[batch_size:]
