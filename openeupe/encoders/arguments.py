"""Check encoder arguments against constructor types and limits."""

from __future__ import annotations

import inspect
import math
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import timm
import torch
from torch import nn
from torch.nn.modules.module import register_module_module_registration_hook

from openeupe.encoders.meta import on_meta
from openeupe.errors import InputError
from openeupe.limits import MODULES, NAME_CHARACTERS, PARAMETERS, RESOLUTION, WIDTH

# Arguments that `create` sets itself, or that would change how weights are loaded.
RESERVED = {
    *("self", "name", "timm_name", "model_name", "pretrained", "checkpoint_path", "cache_dir"),
    *("pretrained_cfg", "pretrained_cfg_overlay", "pretrained_strict", "pretrained_filter_fn"),
    *("pretrained_model_args", "pretrained_custom_load", "pretrained_tag", "kwargs_filter"),
    *(
        "features_only",
        "in_chans",
        "feature_cfg",
        "model_cfg",
        "scriptable",
        "exportable",
        "no_jit",
    ),
}
_PLAIN = (bool, int, float, str)
_MOST_VALUES = 1_000


def check_arguments(name: str, args: Mapping[str, Any], *makers: Callable[..., Any]) -> None:
    """Refuse arguments that are reserved, of a wrong type, or too large.

    Args:
        name: of the architecture, for messages.
        makers: constructors that take the arguments; the first that has one defines its type.

    Raises:
        InputError: naming the argument.
    """
    for key, value in args.items():
        if key in RESERVED:
            raise InputError(f"{name}: {key} cannot be set here: leave it out")
        leaves = list(_leaves(value))
        if len(leaves) > _MOST_VALUES:
            raise InputError(f"{name}: {key} has more than {_MOST_VALUES} values: shorten it")
        for leaf in leaves:
            _check_plain(f"{name}: {key}", leaf)
        kinds = next((_kinds(hints[key]) for hints in map(_hints, makers) if key in hints), None)
        if kinds:
            for leaf in leaves:
                _check_type(f"{name}: {key}", leaf, kinds)
    resolution = args.get("resolution")
    if isinstance(resolution, int) and not 0 < resolution <= RESOLUTION:
        raise InputError(
            f"{name}: resolution {resolution} is not between 1 and {RESOLUTION}: choose another"
        )


def timm_class(timm_name: str) -> Callable[..., Any]:
    """The class of a timm architecture, or an untyped function if unknown."""
    entry = timm.model_entrypoint(timm_name)
    found = _hints(entry).get("return")
    return found if inspect.isclass(found) else entry


def check_size(name: str, build: Callable[[], nn.Module]) -> None:
    """Build a network on the meta device. Refuse one that is too large.

    Raises:
        InputError: naming the limit; or what `build` raises as one.
    """
    count = 0

    def counted(*_: Any) -> None:
        nonlocal count
        count += 1
        if count > MODULES:
            raise InputError(f"{name} would have more than {MODULES} modules: make it smaller")

    handle = register_module_module_registration_hook(counted)
    try:
        with torch.random.fork_rng(devices=[]), on_meta():
            network = build()
    finally:
        handle.remove()
    parameters = sum(p.numel() for p in network.parameters())
    if parameters > PARAMETERS:
        raise InputError(f"{name} would have more than {PARAMETERS} parameters: make it smaller")


def _hints(maker: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(maker.__init__ if inspect.isclass(maker) else maker)
    except (NameError, TypeError, AttributeError):  # annotations that cannot be evaluated
        return {}


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        value = [part for pair in value.items() for part in pair]
    if isinstance(value, list | tuple):
        for part in value:
            yield from _leaves(part)
    else:
        yield value


def _kinds(hint: Any) -> set[type] | None:
    """The plain types that an annotation accepts; None if any."""
    if hint is None or hint is type(None):
        return set()
    if hint in _PLAIN:
        return {hint}
    if typing.get_origin(hint) is typing.Literal:
        return {type(value) for value in typing.get_args(hint)}
    parts = [part for part in typing.get_args(hint) if part is not ...]
    if hint is Any or hint in (dict, list, tuple) or typing.get_origin(hint) is dict:
        return None
    found: set[type] = set()
    for part in parts if isinstance(parts, list) else []:
        if isinstance(part, list) or (inspect.isclass(part) and part not in _PLAIN):
            continue  # a class or the arguments of a callable: nothing that a file can hold
        kinds = _kinds(part)
        if kinds is None:
            return None
        found |= kinds
    return found


def _check_plain(where: str, value: Any) -> None:
    if value is not None and not isinstance(value, _PLAIN):
        raise InputError(f"{where}: {value!r} is no number, text or list of them: correct it")
    if isinstance(value, str) and len(value) > NAME_CHARACTERS:
        raise InputError(f"{where} has more than {NAME_CHARACTERS} characters: shorten it")
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{where}: {value} is not a finite number: correct it")
    if isinstance(value, int | float) and abs(value) > WIDTH:
        raise InputError(f"{where}: {value} is beyond the limit of {WIDTH}: make it smaller")


def _check_type(where: str, value: Any, kinds: set[type]) -> None:
    allowed = kinds | ({int} if float in kinds else set())
    if value is not None and type(value) not in allowed:
        wanted = " or ".join(sorted(kind.__name__ for kind in kinds))
        raise InputError(f"{where}: {value!r} is not of type {wanted}: correct it")
