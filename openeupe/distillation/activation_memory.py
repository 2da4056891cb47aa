"""Activation memory of a student's forward pass, counted on fake tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks

from openeupe.distillation.adapter_heads import TeacherHeads
from openeupe.distillation.placement import checkpoint_activations
from openeupe.distillation.precision import autocast
from openeupe.distributed import layers
from openeupe.encoders import Encoder


@dataclass(frozen=True)
class Saved:
    """Bytes that autograd saves of a forward pass, float32 weights apart.

    once: whatever the number of images (weights as autocast casts them); each: of an image.
    """

    once: int
    each: int


def saved_by_autograd(
    student: Encoder, heads: list[TeacherHeads], resolution: int, precision: str, again: bool
) -> Saved:
    """Count the bytes that autograd saves in a student's step.

    again: blocks are recomputed in backward: the inputs of all blocks and the activations of one
        are counted as well.

    Networks are replaced by fake ones on a CPU, since autocast has no meta device.
    """
    with FakeTensorMode():
        for module in (student, *heads):
            module._apply(lambda t: torch.empty(t.shape, dtype=t.dtype, device="cpu"))
        plain = _saved_of(student, heads, resolution, precision, [])
        if not again:
            return plain
        checkpoint_activations(student)
        blocks = list(layers(student, sum(p.numel() for p in student.parameters())))
        kept = _saved_of(student, heads, resolution, precision, blocks)
    return Saved(plain.once, kept.each + plain.each // max(len(blocks), 1))


def _saved_of(
    student: Encoder,
    heads: list[TeacherHeads],
    resolution: int,
    precision: str,
    blocks: list[nn.Module],
) -> Saved:
    """What autograd saves, and the inputs of `blocks`. In the mode that made the networks."""
    cpu = torch.device("cpu")
    own = {p.untyped_storage()._cdata for m in (student, *heads) for p in m.parameters()}
    alive: list[Tensor] = []  # else a freed storage's address would be counted for another
    inputs: list[int] = []
    handles = [b.register_forward_pre_hook(lambda _, x: inputs.append(x[0].nbytes)) for b in blocks]
    totals = []
    for count in (2, 4):
        alive.clear()
        inputs.clear()
        with autocast(precision, cpu), saved_tensors_hooks(_then(alive.append), lambda t: t):
            tokens = student(torch.empty(count, 3, resolution, resolution, device=cpu))
            for head in heads:
                head(tokens)
        stores = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in alive}
        totals.append(sum(n for k, n in stores.items() if k not in own) + sum(inputs))
    for handle in handles:
        handle.remove()
    each = (totals[1] - totals[0]) // 2
    return Saved(totals[0] - 2 * each, each)


def _then(act: Callable[[Tensor], None]) -> Callable[[Tensor], Tensor]:
    def acted(tensor: Tensor) -> Tensor:
        act(tensor)
        return tensor

    return acted
