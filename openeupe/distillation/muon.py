"""Muon: gradient descent with orthogonalized momentum, for matrices and convolution kernels."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Replicate

# Coefficients of the quintic iteration of Jordan's Muon (kellerjordan.github.io/posts/muon): after
# five steps every singular value of any size lies between about 0.7 and 1.2.
_QUINTIC = (3.4445, -4.7750, 2.0315)
_SMALLEST = 4  # rows and columns of a matrix that is worth orthogonalizing


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalized by Newton-Schulz iterations, scaled by sqrt(rows / columns).

    A kernel `[out, in, h, w]` is a matrix of `out` rows and `in * h * w` columns. Source: Jordan et
    al., "Muon: an optimizer for hidden layers in neural networks" (2024); the scale is that of
    Bernstein, "Deriving Muon" (2025). Unlike `torch.optim.Muon` and timm's it knows kernels and
    joint matrices at once, and it computes in float32 on a CPU, where bf16 may be emulated.

    Args:
        groups: dicts with `params` and, where they differ from the defaults, `lr`, `weight_decay`
            and `parts` (a matrix of queries, keys and values is three, one above the other).
        lr: learning rate: the root mean square change of an output for an input of ones.
        momentum: share of the old direction that stays; Nesterov's form.
        weight_decay: decoupled, times the learning rate.
        iterations: Newton-Schulz steps.
        block_rows: wide matrices of more rows are orthogonalized in blocks of so many, where they
            can be divided; 0: always whole.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        iterations: int = 5,
        block_rows: int = 0,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "iterations": iterations,
            "block_rows": block_rows,
            "parts": 1,
        }
        super().__init__(groups, defaults)

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Move every parameter that has a gradient. Sharded ones are put together for it."""
        if closure is not None:
            raise ValueError("Muon takes no closure")
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, parameter.grad, group)
        return None

    def _move(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        mean, keep = state["momentum"], group["momentum"]
        mean.lerp_(gradient, 1 - keep)
        ahead = gradient.lerp(mean, keep)
        whole = ahead.full_tensor() if isinstance(ahead, DTensor) else ahead
        matrices = whole.reshape(group["parts"], whole.shape[0] // group["parts"], -1)
        rows, columns = matrices.shape[1:]
        block = group["block_rows"]
        if block and block < rows <= columns and rows % block == 0:
            matrices = matrices.reshape(-1, block, columns)
        direction = orthogonalize(matrices, group["iterations"]).reshape(whole.shape)
        direction = direction.to(parameter.dtype)
        if isinstance(parameter, DTensor):
            mesh = parameter.device_mesh
            direction = DTensor.from_local(direction, mesh, [Replicate()] * mesh.ndim)
            direction = direction.redistribute(placements=parameter.placements)
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(direction, alpha=-group["lr"] * (rows / columns) ** 0.5)


def orthogonalize(matrices: Tensor, iterations: int = 5) -> Tensor:
    """The nearest matrices with orthonormal rows (or columns), roughly.

    Args:
        matrices: `[count, rows, columns]`.
        iterations: Newton-Schulz steps.

    Returns:
        The same shape: singular vectors stay, singular values become about 1. In float32 on a CPU
        and in bf16 elsewhere.
    """
    on_cpu = matrices.device.type == "cpu"
    wide = matrices.to(torch.float32 if on_cpu else torch.bfloat16)
    tall = wide.shape[-2] > wide.shape[-1]
    if tall:
        wide = wide.mT
    wide = wide / wide.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    # The Gram matrix is smaller where there are many columns, but squares the condition number:
    # only float32 has digits for that.
    gram = on_cpu and wide.shape[-1] > 1.5 * wide.shape[-2]
    found = _by_gram(wide, iterations) if gram else _directly(wide, iterations)
    return found.mT if tall else found


def _directly(wide: Tensor, iterations: int) -> Tensor:
    a, b, c = _QUINTIC
    for _ in range(iterations):
        square = wide @ wide.mT
        step = torch.baddbmm(square, square, square, beta=b, alpha=c)
        wide = torch.baddbmm(wide, step, wide, beta=a)
    return wide


def _by_gram(wide: Tensor, iterations: int) -> Tensor:
    """The same polynomials, of `wide @ wide.mT` alone: the columns are multiplied only twice."""
    a, b, c = _QUINTIC
    square = wide @ wide.mT
    product = None
    for k in range(iterations):
        step = torch.baddbmm(square, square, square, beta=b, alpha=c)
        step.diagonal(dim1=-2, dim2=-1).add_(a)
        product = step if product is None else step @ product
        if k < iterations - 1:
            square = step @ square @ step
    return wide if product is None else product @ wide


def matrix_parts(name: str, parameter: Tensor, module: nn.Module) -> int:
    """How many matrices for Muon a parameter holds. 0 if it is none.

    Matrices of linear layers and kernels of convolutions are, and a joint matrix of queries, keys
    and values is three. Embeddings, depthwise kernels and what has under four rows or columns are
    not: they stay with AdamW.

    Args:
        name: the parameter's name in `module`.
        parameter: the parameter.
        module: the network that it is of.
    """
    owner, _, last = name.rpartition(".")
    layer = module.get_submodule(owner)
    if last != "weight" or parameter.ndim < 2 or isinstance(layer, nn.Embedding):
        return 0
    rows, columns = parameter.shape[0], parameter[0].numel()
    parts = 3 if owner.endswith("qkv") and rows % 3 == 0 else 1
    depthwise = parameter.ndim > 2 and parameter.shape[1] == 1
    if depthwise or min(rows // parts, columns) < _SMALLEST:
        return 0
    return parts
