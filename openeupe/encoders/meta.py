"""Networks without memory: their shapes are known, their values are not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

# What initializations call. Nothing happens on the meta device, yet torch takes up to a
# millisecond for each: four fifths of the time in which a network is made.
_OF_TENSORS = ("uniform_", "normal_", "fill_", "zero_", "mul_", "add_", "clamp_", "erfinv_")
_OF_INIT = ("uniform_", "normal_", "constant_", "kaiming_uniform_")
_FILLS = {getattr(torch.Tensor, name) for name in _OF_TENSORS}
_FILLS |= {getattr(torch.nn.init, name) for name in _OF_INIT}


@contextmanager
def on_meta() -> Iterator[None]:
    """Make networks on the meta device: without memory and without random draws."""
    with torch.device("meta"), _Unfilled():
        yield


class _Unfilled(TorchFunctionMode):
    """Tensors on the meta device are not filled."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _FILLS:
            filled = args[0] if args else kwargs["tensor"]
            if filled.is_meta:
                return filled
        return func(*args, **kwargs)
