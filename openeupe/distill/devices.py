"""What a device can do, from the vendors' data sheets or measured here."""

from __future__ import annotations

import time

import torch

from openeupe.distill.parallel import Processes, device_memory
from openeupe.distill.precision import resolve_precision
from openeupe.errors import InputError

# Dense bf16 matrix peak in TFLOP/s, and memory in GiB.
DEVICES: dict[str, tuple[float, float]] = {
    "a100": (312.0, 80),
    "h100": (989.0, 80),
    "h200": (989.0, 141),
    "b200": (2250.0, 180),
    "l4": (121.0, 24),
    "l40s": (362.0, 48),
    "rtx4090": (165.0, 24),
}


def device_tflops(device: str, efficiency: float) -> float:
    """Sustained TFLOP/s of a named device; `this` measures the machine at hand.

    Raises:
        InputError: for a name that is not known.
    """
    if device == "this":
        return _measured_tflops() * efficiency
    return _known(device)[0] * efficiency


def device_gib(device: str) -> float:
    """Memory of a named device in GiB; `this` is the machine at hand."""
    if device == "this":
        kind = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return device_memory(Processes(kind)) / 2**30
    return _known(device)[1]


def device_has_bf16(device: str) -> bool:
    """Whether it has bf16 instructions, as all named ones do."""
    if device != "this":
        return True
    kind = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return resolve_precision("auto", kind) == "bf16"


def _known(device: str) -> tuple[float, float]:
    if device not in DEVICES:
        raise InputError(f"--device {device}: use this, or one of {', '.join(DEVICES)}")
    return DEVICES[device]


def _measured_tflops() -> float:
    """Best of a few large matrix products, in the precision that training would use."""
    cuda = torch.cuda.is_available()
    size, products = (8192, 20) if cuda else (1536, 1)
    dtype = torch.bfloat16 if cuda else torch.float32
    a = torch.randn(size, size, device="cuda" if cuda else "cpu", dtype=dtype)
    best = float("inf")
    for _ in range(6):
        start = time.perf_counter()
        for _ in range(products):
            a @ a
        if cuda:
            torch.cuda.synchronize()
        best = min(best, (time.perf_counter() - start) / products)
    return 2 * size**3 / best / 1e12
