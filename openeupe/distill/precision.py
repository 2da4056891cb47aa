"""In which precision networks compute: autocast, and where it is the slower choice."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


def autocast(precision: str, device: torch.device) -> AbstractContextManager:
    """The autocast context of a stage's `teacher_precision` or `student_precision`."""
    if resolve_precision(precision, device) != "fp32":  # fp8 is for matrix products only
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()


def resolve_precision(precision: str, device: torch.device) -> str:
    """`auto` -> `bf16` where the device has instructions for it, else `fp32`.

    On a CPU that has them bf16 about doubles the speed of plain convolutions and matrix products.
    """
    if precision != "auto":
        return precision
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        # Older versions of PyTorch do not tell; they keep float32.
        tell = getattr(torch.cpu, "get_capabilities", dict)
        capabilities: dict[str, bool] = tell() if device.type == "cpu" else {}
        native = bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return "bf16" if native else "fp32"


def depthwise_in_float32(wanted: bool) -> AbstractContextManager:
    """Depthwise convolutions that autocast would make bf16 on a CPU stay float32, if `wanted`.

    Their gradients in bf16 fall back to reference code, up to a hundred times as slow as the
    forward pass: for EfficientNet-Lite0 four fifths of a step. The result is only more exact.
    Enter it inside of `autocast`; where that is not a CPU's, no call pays for it.
    """
    return _DepthwiseInFloat32() if wanted and torch.is_autocast_enabled("cpu") else nullcontext()


class _DepthwiseInFloat32(TorchFunctionMode):
    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.conv2d and len(args) > 1 and _is_depthwise(*args[:2]):
            images, weight, *others = args
            with torch.autocast("cpu", enabled=False):
                return func(images.float(), weight.float(), *others, **(kwargs or {})).bfloat16()
        return func(*args, **(kwargs or {}))


def _is_depthwise(images: Tensor, weight: Tensor) -> bool:
    return weight.shape[1] == 1 and images.shape[1] > 1
