"""Weights files: read without running code, loaded strictly."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from openeupe.errors import InputError


def read_weights(path: Path, name: str) -> dict[str, Tensor]:
    """Read a `.safetensors`, `.pt`, `.pth` or `.bin` file without pickle.

    Raises:
        InputError: naming `name` and the file, if it cannot be read or holds something else.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        weights: Any = torch.load(path, map_location="cpu", weights_only=True)
        for key in ("state_dict", "model", "teacher"):
            weights = weights.get(key, weights)
    except Exception as error:  # the readers' own errors are of many kinds
        raise InputError(
            f"{name}: cannot read weights from {path} ({first_line(error)}): give a .safetensors "
            f"file, or a .pt/.pth file that holds tensors only"
        ) from error
    if not isinstance(weights, dict):
        raise InputError(f"{name}: {path} holds no tensors by name: give another file")
    return {str(key): value for key, value in weights.items() if isinstance(value, Tensor)}


def load_strictly(module: nn.Module, weights: Mapping[str, Tensor], path: Path, name: str) -> None:
    """Load weights of exactly the module's names and shapes.

    Raises:
        InputError: naming the first tensor that is missing, foreign or of another shape.
    """
    expected = module.state_dict()
    if lacking := sorted(expected.keys() - weights.keys()):
        raise InputError(f"{path} lacks {len(lacking)} tensors, such as {lacking[0]}: wrong file")
    if foreign := sorted(weights.keys() - expected.keys()):
        raise InputError(f"{path} has {len(foreign)} foreign tensors, such as {foreign[0]}")
    for key, tensor in expected.items():
        if weights[key].shape != tensor.shape:
            raise InputError(
                f"{path}: {key} has shape {list(weights[key].shape)}, {name} needs "
                f"{list(tensor.shape)}: the file belongs to another encoder"
            )
    module.load_state_dict(dict(weights))


_observing = threading.Lock()


@contextmanager
def observed_loads(kind: type[nn.Module]) -> Iterator[list[tuple[list[str], list[str]]]]:
    """Collect the missing and unexpected tensors of each `load_state_dict` of a class.

    timm gives no other access to them. It does not load strictly for some networks, so that a
    wrong file would leave random weights without an error.
    """
    found: list[tuple[list[str], list[str]]] = []
    original, inherited = kind.load_state_dict, "load_state_dict" not in vars(kind)

    def load(self: nn.Module, state: Mapping[str, Any], strict: bool = True, **more: Any) -> Any:
        result = original(self, state, strict=False, **more)
        found.append((list(result.missing_keys), list(result.unexpected_keys)))
        return result

    with _observing:
        kind.load_state_dict = load  # type: ignore[method-assign, assignment]
        try:
            yield found
        finally:
            if inherited:
                del kind.load_state_dict
            else:
                kind.load_state_dict = original  # type: ignore[method-assign]


def first_line(error: BaseException) -> str:
    """The first sentence of an error, in one line."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].split(". ")[0].strip().rstrip(".:")[:300]
