"""Teachers in fp8: matrix products of 8-bit floats on new GPUs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from openeupe.distillation.placement import repeated_layers
from openeupe.distillation.stage import Stage, Views
from openeupe.encoders import Encoder, Tokens
from openeupe.errors import InputError

_FORMAT = torch.float8_e4m3fn
_LARGEST = 448.0  # of that format
_WIDTH = 16  # both sides of a matrix must be multiples of it
_LEAST_CAPABILITY = (8, 9)
_TOLERANCE = 0.25  # largest relative error of standardized tokens


class Float8Linear(nn.Module):
    """A frozen `nn.Linear` in fp8 (e4m3). Weights and inputs have a scale per row.

    `[..., in] -> [..., out]` bfloat16, whatever float type comes in; inputs are scaled by their
    own largest value at every pass.
    """

    weight_fp8: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight, scale = _scaled(linear.weight.detach().float())
        self.register_buffer("weight_fp8", weight)
        self.register_buffer("scale", scale.t().contiguous())
        bias = linear.bias
        self.register_buffer("bias", None if bias is None else bias.detach().bfloat16())

    def forward(self, inputs: Tensor) -> Tensor:
        """Multiply in fp8."""
        rows, scale = _scaled(inputs.flatten(0, -2).float())
        # What torch.nn.functional.scaled_mm calls; that one, in 2.11, breaks compiled graphs.
        product = torch._scaled_mm(
            rows,
            self.weight_fp8.t(),
            scale_a=scale,
            scale_b=self.scale,
            bias=self.bias,
            out_dtype=torch.bfloat16,
            use_fast_accum=rows.is_cuda,
        )
        return product.unflatten(0, inputs.shape[:-1])


def _scaled(rows: Tensor) -> tuple[Tensor, Tensor]:
    """`[n, d]` float32 -> fp8 `[n, d]` and float32 scales `[n, 1]`."""
    scale = rows.abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / _LARGEST
    return (rows / scale).to(_FORMAT), scale


@torch.no_grad()
def teachers_to_fp8(stage: Stage, images: Tensor) -> dict[str, Tensor]:
    """Convert the teachers' blocks to fp8, and measure the error on `images`.

    Returns the relative error of each teacher's tokens (class and patch tokens, each centred over
    the images; the larger one), a scalar on the device.

    Raises:
        InputError: where device or network cannot.
    """
    if images.is_cuda and torch.cuda.get_device_capability(images.device) < _LEAST_CAPABILITY:
        raise InputError(
            f"teacher_precision fp8 needs a GPU of compute capability 8.9 or newer, not "
            f"{torch.cuda.get_device_name(images.device)}: set bf16"
        )
    views = Views(images)
    errors = {}
    for name, teacher in cast(Mapping[str, Encoder], stage.teachers).items():
        if any(isinstance(p, DTensor) for p in teacher.parameters()):
            raise InputError(
                f"stages.{stage.name}: teacher {name} is shared among processes and cannot be in "
                "fp8: set shard: never, or teacher_precision: bf16"
            )
        with torch.compiler.set_stance("force_eager"):
            exact = stage.teacher_tokens(name, views, 0)
        changed = hold_in_fp8(teacher)
        try:
            if not changed:
                raise AttributeError("no block has a matrix that fits")
            coarse = stage.teacher_tokens(name, views, 0)
        except (AttributeError, RuntimeError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            raise InputError(
                f"stages.{stage.name}: teacher {name} cannot be in fp8 ({error}): set "
                "teacher_precision: bf16"
            ) from error
        errors[name] = _relative_error(exact, coarse)
    return errors


def check_parity(stage: Stage, errors: Mapping[str, float]) -> None:
    """Raise `InputError` if the error of a teacher's tokens is too large."""
    for name, error in errors.items():
        if not error <= _TOLERANCE:
            raise InputError(
                f"stages.{stage.name}: fp8 moves the tokens of {name} by {error:.0%}, more than "
                f"{_TOLERANCE:.0%}: set teacher_precision: bf16"
            )


def hold_in_fp8(teacher: nn.Module) -> int:
    """Replace the linear layers of a network's blocks; return their number."""
    count = 0
    for block in repeated_layers(teacher):
        for module in block.modules():
            _join_qkv_bias(module)
            if isinstance(module, nn.MultiheadAttention):
                continue  # reads its weights past the layer
            for name, child in list(module.named_children()):
                if isinstance(child, nn.Linear) and not any(n % _WIDTH for n in child.weight.shape):
                    setattr(module, name, Float8Linear(child))
                    count += 1
    return count


def _join_qkv_bias(module: nn.Module) -> None:
    """Join separate biases of timm's attention into its qkv layer, so that it calls it."""
    qkv, q_bias = getattr(module, "qkv", None), getattr(module, "q_bias", None)
    if isinstance(qkv, nn.Linear) and isinstance(q_bias, Tensor) and qkv.bias is None:
        parts = [q_bias, cast(Tensor, module.k_bias), cast(Tensor, module.v_bias)]
        qkv.bias = nn.Parameter(torch.cat(parts).detach(), requires_grad=False)
        module.q_bias = None


def _relative_error(exact: Tokens, coarse: Tokens) -> Tensor:
    errors = []
    for a, b in zip(exact, coarse, strict=True):
        spread = a.float() - a.float().mean(0, keepdim=True)
        errors.append((a.float() - b.float()).norm() / spread.norm())
    return torch.stack(errors).max()
