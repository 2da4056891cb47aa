"""Per-student optimizer, schedule and divergence handling."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from timm.layers import DropBlock2d, DropPath, PatchDropout
from torch import Tensor, nn

from openeupe.distillation.checkpoint import ready_optimizer
from openeupe.distillation.optimizer import build_optimizers, learning_rate, set_lr
from openeupe.distillation.stage import Stage, Views
from openeupe.distributed import Processes, exchange_gradients, local, whole
from openeupe.encoders import Tokens
from openeupe.errors import InputError
from openeupe.seeds import derive_seed, seed_draws

_NEVER = 2**62


class Learner:
    """One student with its heads and optimizer.

    Attributes:
        failed_at: int64 scalar on the device: the first step (from 1) whose loss or gradient was
            not finite. Kept there, so that watching it reads nothing to the host.
    """

    def __init__(self, stage: Stage, name: str, processes: Processes) -> None:
        self.stage = stage
        self.name = name
        self.processes = processes
        self.config = stage.config.optimizer_of(name)
        self.module = stage.trainable(name)
        self.parameters = list(self.module.parameters())
        student, heads, batch = stage.students[name], stage.heads[name], stage.config.batch_size
        self.optimizers = build_optimizers(student, heads, self.config, batch)
        for optimizer in self.optimizers:
            # A checkpoint also contains the state of parameters without a gradient so far.
            ready_optimizer(optimizer)
        self.failed_at = torch.tensor(_NEVER, device=processes.device)
        self._noisy = any(_drops(m) for m in self.module.modules())

    def lr(self, step: int) -> float:
        """The learning rate of `step`."""
        config = self.stage.config
        return learning_rate(step, config.steps, config.batch_size, self.config)

    def backward(
        self, views: Views, targets: Mapping[str, Tokens], step: int, part: int = 0
    ) -> dict[str, Tensor]:
        """Add the gradients of one part of this process's images. Device scalars by name."""
        parts = self.stage.config.accumulate
        exchange_gradients(self.module.modules(), now=part == parts - 1)
        seed_draws(self._seed(step, part), self.processes.device)
        losses = self.stage.losses(self.name, views, targets, step)
        total = self.stage.total(losses)
        recomputed = self.stage.config.students[self.name].checkpoint_activations
        with unchanged_buffers(self.module) if recomputed else nullcontext():
            (total if parts == 1 else total / parts).backward()
        values = {f"total/{self.name}": total.detach()}
        several = len(self.stage.students) > 1
        for teacher, loss in losses.items():
            pair = f"{self.name}/{teacher}" if several else teacher
            values[f"loss/{pair}/cls"] = loss.cls.detach()
            values[f"loss/{pair}/patches"] = loss.patches.detach()
        self._watch(total.detach(), step)
        return values

    def update(self, step: int) -> dict[str, Tensor]:
        """Clip gradients and update the weights; return the gradient norm before clipping."""
        values = {}
        if self.config.clip_norm is not None:
            norm = nn.utils.clip_grad_norm_(self.parameters, self.config.clip_norm)
            values[f"grad_norm/{self.name}"] = whole(norm)
            self._watch(whole(norm), step)
        for optimizer in self.optimizers:
            set_lr(optimizer, self.lr(step))
            optimizer.step()
            optimizer.zero_grad()
        return values

    @torch.no_grad()
    def watch_weights(self, step: int) -> None:
        """Check that the weights are finite after the update of `step`.

        The loss does not show those of the last update.
        """
        state = [local(tensor) for tensor in self.module.state_dict().values()]
        worst = [t.abs().max() for t in state if t.is_floating_point() and t.numel()]
        self._watch(torch.stack([one.float() for one in worst]).max(), step)

    def _watch(self, value: Tensor, step: int) -> None:
        failed = torch.where(torch.isfinite(value), _NEVER, step + 1)
        self.failed_at = torch.minimum(self.failed_at, failed)

    def _seed(self, step: int, part: int) -> int:
        """Seed of dropout, stochastic depth and RoPE's rescaling at a step.

        RoPE is rescaled once for all images of a step, so every process draws the same value.
        Draws per image must differ between the processes and parts of a batch.
        """
        names: list[int | str] = [self.stage.seed, self.stage.name, step, self.name]
        share = self.processes.rank * self.stage.config.accumulate + part
        if share and self._noisy:
            names.append(share)
        return derive_seed(*names)

    def forget(self) -> None:
        """Drop the optimizer state of a diverged student."""
        for optimizer in self.optimizers:
            optimizer.state.clear()

    def owns_metric(self, metric: str) -> bool:
        """Whether a metric belongs to this student."""
        kind, _, rest = metric.partition("/")
        alone = kind == "loss" and len(self.stage.students) == 1
        return alone or rest.split("/")[0] == self.name


class Students:
    """All students of a stage. One that diverges is dropped, the others continue.

    Attributes:
        dropped: by name, the step (from 1) at which a student was no longer finite.
    """

    def __init__(self, stage: Stage, processes: Processes) -> None:
        self.stage = stage
        self.processes = processes
        self.learners = {name: Learner(stage, name, processes) for name in stage.students}
        self.dropped: dict[str, int] = {}

    def alive(self) -> list[Learner]:
        """Students that have not diverged."""
        return [one for name, one in self.learners.items() if name not in self.dropped]

    def drop_failed(self) -> list[str]:
        """Drop students that diverged since the last call, and return their names.

        A student has diverged when a loss, a gradient or a weight is not finite. All processes
        return the same. Reads the device.

        Raises:
            InputError: if all students diverged.
        """
        failed = {one.name: self._failed_at(one) for one in self.alive()}
        failed = {name: step for name, step in failed.items() if step < _NEVER}
        if failed and len(failed) == len(self.alive()):
            name, step = next(iter(failed.items()))
            raise InputError(
                f"stage {self.stage.name}: the loss or the weights of {name} became nan or "
                f"infinite at step {step}: lower optimizer.lr, or set student_precision and "
                "teacher_precision to fp32; the last checkpoint remains"
            )
        self.dropped |= failed
        for name in failed:
            self.learners[name].forget()
        return list(failed)

    def without_dropped(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Metrics of the students that have not diverged."""
        gone = [self.learners[name] for name in self.dropped]
        return {k: v for k, v in metrics.items() if not any(one.owns_metric(k) for one in gone)}

    def state(self) -> dict[str, Any]:
        """State for a checkpoint, without tensors, as plain JSON. Reads the device."""
        return {
            "dropped": self.dropped,
            "failed_at": {one.name: self._failed_at(one) for one in self.learners.values()},
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned."""
        self.dropped = dict(state["dropped"])
        for name, step in state["failed_at"].items():
            self.learners[name].failed_at.fill_(step)
        for name in self.dropped:
            self.learners[name].forget()

    def _failed_at(self, learner: Learner) -> int:
        return int(self.processes.least(learner.failed_at.clone()))


@contextmanager
def unchanged_buffers(module: nn.Module) -> Iterator[None]:
    """Restore buffers afterwards.

    Recomputing a forward pass in backward would update batch norm's statistics twice.
    """
    before = [(buffer, buffer.clone()) for buffer in module.buffers()]
    yield
    with torch.no_grad():
        for buffer, value in before:
            buffer.copy_(value)


def _drops(module: nn.Module) -> bool:
    """Whether a layer draws dropout or stochastic depth per image."""
    if isinstance(module, nn.modules.dropout._DropoutNd):
        return module.p > 0
    if isinstance(module, PatchDropout):
        return module.prob > 0
    return isinstance(module, DropPath | DropBlock2d) and module.drop_prob > 0
