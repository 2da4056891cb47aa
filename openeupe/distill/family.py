"""The students of a stage at work: each with its own optimizer, schedule, scales and fate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from openeupe.data import derive_seed
from openeupe.distill.optimizer import build_optimizer, learning_rate
from openeupe.distill.stage import Stage, Views
from openeupe.encoders import Tokens
from openeupe.errors import InputError

_NEVER = 2**62


class Learner:
    """One student with its heads and optimizer.

    Attributes:
        failed_at: int64 scalar on the device: the first step (from 1) whose loss or gradient was
            not finite. Kept there, so that watching it reads nothing to the host.
    """

    def __init__(self, stage: Stage, name: str, device: torch.device) -> None:
        self.stage = stage
        self.name = name
        self.config = stage.config.optimizer_of(name)
        module = stage.trainable(name)
        self.parameters = list(module.parameters())
        self.optimizer = build_optimizer(module, self.config)
        self.failed_at = torch.tensor(_NEVER, device=device)

    def lr(self, step: int) -> float:
        """The learning rate of `step`."""
        config = self.stage.config
        return learning_rate(step, config.steps, config.batch_size, self.config)

    def learn(self, views: Views, targets: Mapping[str, Tokens], step: int) -> dict[str, Tensor]:
        """Forward, backward and optimizer step; device scalars by name."""
        # Dropout, stochastic depth and RoPE's rescaling, too, are functions of (seed, step).
        torch.manual_seed(derive_seed(self.stage.seed, self.stage.name, step, self.name))
        losses = self.stage.losses(self.name, views, targets, step)
        total = self.stage.total(losses)
        total.backward()
        values = {f"total/{self.name}": total}
        several = len(self.stage.students) > 1
        for teacher, loss in losses.items():
            pair = f"{self.name}/{teacher}" if several else teacher
            values[f"loss/{pair}/cls"] = loss.cls
            values[f"loss/{pair}/patches"] = loss.patches
        finite = torch.isfinite(total.detach())
        if self.config.clip_norm is not None:
            norm = nn.utils.clip_grad_norm_(self.parameters, self.config.clip_norm)
            values[f"grad_norm/{self.name}"] = norm
            finite = finite & torch.isfinite(norm)
        failed = torch.where(finite, _NEVER, step + 1)
        self.failed_at = torch.minimum(self.failed_at, failed)
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr(step)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return values

    def speaks_of(self, metric: str) -> bool:
        """Whether a metric's name is of this student."""
        kind, _, rest = metric.partition("/")
        alone = kind == "loss" and len(self.stage.students) == 1
        return alone or rest.split("/")[0] == self.name


class Family:
    """All students of a stage. One that diverges is dropped, and the others go on as if alone.

    Attributes:
        dropped: by name, the step (from 1) at which a student's loss was no longer finite.
    """

    def __init__(self, stage: Stage, device: torch.device) -> None:
        self.stage = stage
        self.learners = {name: Learner(stage, name, device) for name in stage.students}
        self.dropped: dict[str, int] = {}

    def alive(self) -> list[Learner]:
        """Those that still learn."""
        return [one for name, one in self.learners.items() if name not in self.dropped]

    def drop_failed(self) -> list[str]:
        """Names of the students found to have diverged since the last call. Reads the host.

        Raises:
            InputError: if none is left.
        """
        failed = {one.name: int(one.failed_at) for one in self.alive()}
        failed = {name: step for name, step in failed.items() if step < _NEVER}
        if failed and len(failed) == len(self.alive()):
            name, step = next(iter(failed.items()))
            raise InputError(
                f"stage {self.stage.name}: the loss of {name} became nan or infinite at step "
                f"{step}: lower optimizer.lr, or set student_precision and teacher_precision to "
                "fp32; the last checkpoint is kept"
            )
        self.dropped |= failed
        for name in failed:
            self.learners[name].optimizer.state.clear()
        return list(failed)

    def without_dropped(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """The metrics that speak of students that still learn."""
        gone = [self.learners[name] for name in self.dropped]
        return {k: v for k, v in metrics.items() if not any(one.speaks_of(k) for one in gone)}

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps beside the tensors; plain JSON. Reads the host."""
        return {
            "dropped": self.dropped,
            "failed_at": {name: int(one.failed_at) for name, one in self.learners.items()},
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.dropped = dict(state["dropped"])
        for name, step in state["failed_at"].items():
            self.learners[name].failed_at.fill_(step)
