"""Precision of networks: autocast and its exceptions."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from openeupe.distillation.checkpoint import CHECKPOINTS, checkpoints
from openeupe.distillation.recipe import StageConfig
from openeupe.distributed import Processes
from openeupe.files import write_atomically
from openeupe.plain_json import Saved, read_checked

_PRECISION = "precision.json"


class _Begun(Saved):
    teachers: Literal["fp32", "bf16", "fp8"]
    students: Literal["fp32", "bf16"]


def settled(
    config: StageConfig, folder: Path, here: Processes, report: Callable[[str], None]
) -> StageConfig:
    """Replace `auto` by the precisions that a stage began with.

    A stage that is resumed on another machine keeps them. The first process decides, and
    records them in the stage's folder.

    Args:
        report: called with a line if `auto` would be another precision here.

    Raises:
        InputError: if the record is damaged.
    """
    asked = {"teachers": config.teacher_precision, "students": config.student_precision}
    found = {kind: resolve_precision(one, here.device) for kind, one in asked.items()}
    path = folder / _PRECISION
    if here.first and path.is_file():
        fix = f"copy it back, or delete {folder} to begin the stage again"
        begun = read_checked(path, _Begun, fix)
        for kind, now in found.items():
            if begun[kind] != now:
                report(f"continues in {begun[kind]}, as it began; auto is {now} here ({kind})")
        found = begun
    elif here.first:
        if checkpoints(folder / CHECKPOINTS):
            report(f"{_PRECISION} is missing: whether it began in another precision is not known")
        write_atomically(path, json.dumps(found))
    found = here.gather_plain(found)[0]
    precisions = {"teacher_precision": found["teachers"], "student_precision": found["students"]}
    return config.model_copy(update=precisions)


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
        # Older versions of PyTorch do not report it; they use float32.
        query = getattr(torch.cpu, "get_capabilities", dict)
        capabilities: dict[str, bool] = query() if device.type == "cpu" else {}
        native = bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return "bf16" if native else "fp32"


def depthwise_in_float32(wanted: bool) -> AbstractContextManager:
    """Keep depthwise convolutions in float32 under autocast on a CPU, if `wanted`.

    Their gradients in bf16 fall back to reference code, up to a hundred times as slow as the
    forward pass: for EfficientNet-Lite0 four fifths of a step. The result is more exact.
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
