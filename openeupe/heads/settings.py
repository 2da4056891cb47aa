"""Settings of fitting a head."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from openeupe.config import Config
from openeupe.heads.schedule import learning_rates
from openeupe.limits import BATCH, RATE, STEPS

Steps = Annotated[int, Field(ge=1, le=STEPS)]
WarmupSteps = Annotated[int, Field(ge=0, le=STEPS)]
BatchSize = Annotated[int, Field(ge=1, le=BATCH, description="Images a step")]
Rate = Annotated[float, Field(gt=0, le=RATE)]


class FitSettings(Config):
    """How a head is fitted: AdamW, a linear warm-up, then half a cosine to 0.

    A protocol with other rules is a subclass: it changes defaults, adds settings, or computes its
    rates, betas and clipping from them.

    >>> [f"{rate:.4f}" for rate in FitSettings(steps=4, lr=0.01, warmup_steps=1).rates()]
    ['0.0050', '0.0100', '0.0075', '0.0025']
    """

    steps: Steps = 300
    batch_size: BatchSize = 8
    lr: Rate = 1e-2
    weight_decay: float = Field(1e-3, ge=0, le=RATE)
    warmup_steps: WarmupSteps = 30

    def rates(self) -> Iterator[float]:
        """The learning rate of every step."""
        return learning_rates(self.steps, self.lr, self.warmup_steps, form="recursive")

    def betas_at(self, step: int) -> tuple[float, float]:
        """AdamW's betas at a step."""
        return 0.9, 0.999

    def clip_norm(self) -> float | None:
        """The largest norm of the gradient; None: any."""
        return None
