"""Last layers of adapter heads, fitted by ridge regression before training begins."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import cast

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn import functional

from openeupe.distillation.adapter_heads import AdapterHead, TeacherHeads
from openeupe.distillation.precision import autocast
from openeupe.distillation.stage import Stage, Views
from openeupe.distributed import whole
from openeupe.encoders import Encoder, Tokens

BATCHES = 10  # images of the regression: every fifth batch chooses the shrinkage
_SHRINKAGE = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # of the mean eigenvalue of the activations


class Regression:
    """Ridge regression from sums over rows. Rows need not be saved.

    Args:
        inputs: width of the activations.
        outputs: width of the targets.
        device: where the sums are, in float64.
    """

    def __init__(self, inputs: int, outputs: int, device: torch.device) -> None:
        def sums(*shape: int) -> Tensor:
            return torch.zeros(2, *shape, dtype=torch.float64, device=device)

        # First those that the weights are fitted on, then those that choose the shrinkage.
        self.gram, self.cross = sums(inputs, inputs), sums(inputs, outputs)
        self.rows = sums()

    def add(self, inputs: Tensor, outputs: Tensor, part: int) -> None:
        """Add rows `[n, inputs]` and `[n, outputs]`; part 1 chooses the shrinkage."""
        x, y = inputs.double(), outputs.double()
        self.gram[part] += x.T @ x
        self.cross[part] += x.T @ y
        self.rows[part] += len(x)

    def gathered(self, gather: Callable[[Tensor], list[Tensor]]) -> None:
        """Add the sums of all processes."""
        for kind in ("gram", "cross", "rows"):
            setattr(self, kind, torch.stack(gather(getattr(self, kind))).sum(0))

    def solve(self) -> Tensor:
        """Weights float32 `[outputs, inputs]`, as a linear layer without bias has them."""
        errors = [self._error(self._weights(0, share)) for share in _SHRINKAGE]
        best = _SHRINKAGE[min(range(len(errors)), key=errors.__getitem__)]
        self.gram[0] += self.gram[1]
        self.cross[0] += self.cross[1]
        return self._weights(0, best).T.float().contiguous()

    def _weights(self, part: int, share: float) -> Tensor:
        gram = self.gram[part]
        shrinkage = share * gram.diagonal().mean().clamp_min(1e-12)
        ridge = gram + shrinkage * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        found: Tensor = torch.linalg.solve(ridge, self.cross[part])
        return found

    def _error(self, weights: Tensor) -> float:
        """Squared error of the second part, up to a constant."""
        fitted = (weights * (self.gram[1] @ weights)).sum()
        return float(fitted - 2 * (weights * self.cross[1]).sum())


@torch.no_grad()
def fit_heads(
    stage: Stage,
    batches: Iterable[tuple[int, Tensor]],
    gather: Callable[[Tensor], list[Tensor]] | None = None,
) -> None:
    """Fit the last layer of every adapter head by ridge regression. Its targets are the teachers'
    standardized tokens.

    The first layers stay as they were drawn. A head then starts with the best linear map of its
    activations, so that the student's first gradients come from a head that fits it.

    Args:
        stage: its statistics are measured.
        batches: (step, uint8 images) as for the statistics; a step's images may come in parts.
        gather: gives the tensor of every process, where there are several.
    """
    found: dict[tuple[str, str, str], Regression] = {}
    mode = stage.training
    stage.eval()
    for step, images in batches:
        views, part = Views(images), int(step % 5 == 4)
        targets = stage.targets(views, step)
        for name in stage.students:
            student = cast(Encoder, stage.students[name])
            with autocast(stage.config.student_precision, images.device):
                tokens = student(views.at(stage.resolution("student", name, step)))
            for teacher in stage.config.teachers_of(name):
                heads = _heads(stage, name, teacher)
                rows = _rows(tokens, targets[teacher])
                for kind, (inputs, outputs) in rows.items():
                    hidden = _hidden(cast(AdapterHead, getattr(heads, kind)), inputs)
                    key = (name, teacher, kind)
                    if key not in found:
                        widths = hidden.shape[1], outputs.shape[1]
                        found[key] = Regression(*widths, images.device)
                    found[key].add(hidden, outputs, part)
    for (name, teacher, kind), regression in found.items():
        if gather is not None:
            regression.gathered(gather)
        head = cast(AdapterHead, getattr(_heads(stage, name, teacher), kind))
        _set(cast(nn.Linear, head[-1]).weight, regression.solve())
    stage.train(mode)


def _heads(stage: Stage, student: str, teacher: str) -> TeacherHeads:
    return cast(TeacherHeads, cast(nn.ModuleDict, stage.heads[student])[teacher])


def _hidden(head: AdapterHead, inputs: Tensor) -> Tensor:
    """Activations `[n, hidden]` before the last layer; of sharded heads too."""
    linear, norm = cast(nn.Linear, head[0]), cast(nn.LayerNorm, head[1])
    made = functional.linear(inputs.float(), whole(linear.weight))
    made = functional.layer_norm(
        made, norm.normalized_shape, whole(norm.weight), whole(norm.bias), norm.eps
    )
    return functional.gelu(made)


def _rows(tokens: Tokens, targets: Tokens) -> dict[str, tuple[Tensor, Tensor]]:
    """(student's, teacher's) rows by kind of token, the teacher's grid brought to the student's."""
    grid = tokens.patches.shape[-2:]
    wanted = targets.patches
    if wanted.shape[-2:] != grid:
        wanted = functional.interpolate(wanted, grid, mode="bicubic", antialias=True)
    rows = [t.flatten(2).transpose(1, 2).flatten(0, 1) for t in (tokens.patches, wanted)]
    return {"cls": (tokens.cls, targets.cls), "patches": (rows[0], rows[1])}


def _set(weight: Tensor, value: Tensor) -> None:
    """Give a parameter its value, shared out as the parameter is."""
    if isinstance(weight, DTensor):
        weight.copy_(distribute_tensor(value, weight.device_mesh, weight.placements))
    else:
        weight.copy_(value)
