"""Learning-rate schedule: linear warm-up, then half a cosine."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

Form = Literal["plain", "recursive", "ade20k", "nyuv2"]


def half_cosine(step: float, steps: float, first: float, last: float) -> float:
    """Half a cosine from `first` at step 0 to `last` at `steps`."""
    return last + (first - last) * (1 + math.cos(math.pi * step / steps)) / 2


def learning_rates(
    steps: int,
    lr: float,
    warmup_steps: int,
    *,
    form: Form = "plain",
    warmup_start: float = 0.0,
    final_lr: float = 0.0,
) -> Iterator[float]:
    """The learning rate of every step, from 0 to `steps - 1`.

    Args:
        steps: length of the training.
        lr: rate at the end of the warm-up.
        warmup_steps: steps with lower rates, at the beginning.
        form: how warm-up and cosine are put together:
            plain: the rate rises to `lr`, then the cosine spans the steps that are left.
            recursive: as PyTorch's LinearLR, which would reach `lr` one step after the warm-up, and
                CosineAnnealingLR over the steps that are left. Each rate is computed from the one
                before. A warm-up leaves at least one step.
            ade20k: the released evaluation code's rule for ADE20K. The cosine spans all steps, and
                is one step ahead after the warm-up. In the warm-up the rate is multiplied by what
                is left of the steps. The first two steps have the same rate.
            nyuv2: its rule for NYUv2. The cosine spans all steps, and is one step ahead after the
                warm-up. In the warm-up the cosine to 0 is multiplied by the warm-up's share, so
                that the highest rate is below `lr`.
        warmup_start: form ade20k: factor of the first rate; nyuv2: times `lr`, is added to the
            rates of the warm-up.
        final_lr: where the cosine ends. Equal to `lr`: the rate stays. Form recursive ends at 0.

    >>> [round(rate, 2) for rate in learning_rates(4, 1.0, 1)]
    [0.5, 1.0, 0.75, 0.25]
    """
    if form == "recursive":
        return _recursive(steps, lr, max(min(warmup_steps, steps - 1), 0))

    def rate(step: int) -> float:
        if form == "plain":
            if step < warmup_steps:
                return lr * ((step + 1) / (warmup_steps + 1))
            return half_cosine(step - warmup_steps, max(steps - warmup_steps, 1), lr, final_lr)
        if form == "ade20k":
            step = max(step - 1, 0)
            if step < warmup_steps:
                share = warmup_start + (1 - warmup_start) * step / warmup_steps
                return lr * share * (1 - step / steps)
        elif step < warmup_steps:
            falling = half_cosine(step, steps, lr, 0.0)
            return warmup_start * lr + falling * step / warmup_steps
        return half_cosine(step + 1, steps, lr, final_lr)

    return map(rate, range(steps))


def _recursive(steps: int, lr: float, warmup: int) -> Iterator[float]:
    """Rounded as PyTorch's schedulers round, on which the scores of fitted heads depend."""
    first, length = 1 / (warmup + 1), max(steps - warmup, 1)
    rate = lr * first
    yield rate
    for step in range(1, steps):
        if step < warmup:
            rate *= 1 + (1 - first) / ((warmup + 1) * first + (step - 1) * (1 - first))
        elif step == warmup:
            rate = lr
        else:
            now = 1 + math.cos(math.pi * (step - warmup) / length)
            before = 1 + math.cos(math.pi * (step - 1 - warmup) / length)
            rate *= now / before
        yield rate
