"""Peak rates and memory of devices, from vendors or measured here."""

from __future__ import annotations

import time

import torch

from openeupe.distillation.precision import resolve_precision
from openeupe.distributed import Processes, device_memory
from openeupe.errors import InputError

# Dense peak in TFLOP/s of bf16 matrices and of float32 (no TF32, as PyTorch multiplies by
# default), and memory in GiB: SXM for A100, H100 and H200, HGX for B200. Each float32 peak is
# 2 x CUDA cores x boost clock: 6912 at 1.41 GHz, 16896 at 1.98, 18944 at 1.98, 7424 at 2.04,
# 18176 at 2.52, 16384 at 2.52.
DEVICES: dict[str, tuple[float, float, float]] = {
    "a100": (312.0, 19.5, 80),
    "h100": (989.0, 67.0, 80),
    "h200": (989.0, 67.0, 141),
    "b200": (2250.0, 75.0, 180),
    "l4": (121.0, 30.3, 24),
    "l40s": (362.0, 91.6, 48),
    "rtx4090": (165.0, 82.6, 24),
}
_PATIENCE = 5.0  # seconds of measuring: CPUs without bf16 instructions take long for a product


def device_tflops(device: str, efficiency: float, precision: str = "bf16") -> float:
    """Sustained TFLOP/s of a named device; `this` measures this machine.

    Args:
        efficiency: share of the peak that is reached.
        precision: "bf16" or "fp32".

    Raises:
        InputError: for a name that is not known.
    """
    if device == "this":
        return _measured_tflops(precision) * efficiency
    return _known(device)[precision == "fp32"] * efficiency


def device_gib(device: str) -> float:
    """Memory of a named device in GiB; `this` is this machine."""
    if device == "this":
        kind = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return device_memory(Processes(kind)) / 2**30
    return _known(device)[2]


def device_has_bf16(device: str) -> bool:
    """Whether the device has bf16 instructions; all named ones do."""
    if device != "this":
        return True
    kind = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return resolve_precision("auto", kind) == "bf16"


def _known(device: str) -> tuple[float, float, float]:
    if device not in DEVICES:
        raise InputError(f"device {device}: use this, or one of {', '.join(DEVICES)}")
    return DEVICES[device]


def _measured_tflops(precision: str) -> float:
    """Best of a few large matrix products."""
    cuda = torch.cuda.is_available()
    size, products = (8192, 20) if cuda else (1536, 1)
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    a = torch.randn(size, size, device="cuda" if cuda else "cpu", dtype=dtype)
    best, begun = float("inf"), time.perf_counter()
    for number in range(6):
        if number and time.perf_counter() - begun > _PATIENCE:
            break
        start = time.perf_counter()
        for _ in range(products):
            a @ a
        if cuda:
            torch.cuda.synchronize()
        best = min(best, (time.perf_counter() - start) / products)
    return 2 * size**3 / best / 1e12
