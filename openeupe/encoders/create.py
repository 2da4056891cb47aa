"""Create an encoder from its name."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm

from openeupe.encoders.arguments import check_arguments, timm_class
from openeupe.encoders.backbone import TimmEncoder
from openeupe.encoders.encoder import Encoder
from openeupe.encoders.eupe import ARCHITECTURES, PROXY, build, build_proxy
from openeupe.encoders.experts import EXPERTS
from openeupe.encoders.pixels import RawPixels
from openeupe.errors import InputError

_OURS: dict[str, type[Encoder]] = {**EXPERTS, "raw_pixels": RawPixels}  # not timm's


def names() -> list[str]:
    """Names of OpenEUPE's own encoders; any timm name works as well."""
    return [*ARCHITECTURES, "eupe_proxy", *_OURS]


def is_name(name: str) -> bool:
    """Whether `create` has an encoder of this name."""
    return name in names() or timm.is_model(name)


def create(name: str, *, pretrained: bool | str | Path = False, **args: Any) -> Encoder:
    """Make an encoder from one of `names()` or from any timm name.

    Args:
        pretrained: False for random weights; True for the published ones (fetched if not cached),
            in eval mode; or, for timm's architectures, the path of a weights file.
        args: settings of the architecture, such as depth, class_token or patches.

    Raises:
        InputError: for an unknown name or setting, or weights that cannot be loaded.
    """
    check_arguments(name, args, *_makers(name))
    try:
        if name in _OURS:
            if not isinstance(pretrained, bool):
                raise InputError(f"{name}: pretrained must be true or false, not {pretrained}")
            return _OURS[name](pretrained=pretrained, **args)  # type: ignore[call-arg]
        if name in ARCHITECTURES:
            return build(name, pretrained=pretrained, **args)
        if name == "eupe_proxy":
            return build_proxy(pretrained=pretrained, **args)
        if timm.is_model(name):
            return TimmEncoder(name, pretrained=pretrained, **args)
    except TypeError as error:
        given = ", ".join(f"{key}={value!r}" for key, value in args.items())
        raise InputError(
            f"{name} cannot be made with {given} ({error}): correct the arguments"
        ) from error
    close = difflib.get_close_matches(name, [*names(), *timm.list_models()], n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else f"use {', '.join(names())}"
    raise InputError(f"no encoder is called {name!r}: {hint} (any timm name works, too)")


def remade(encoder: Encoder, **args: Any) -> Encoder:
    """Copy an encoder with its weights and input constants. The copy is float32 on the CPU.

    Args:
        args: replace those of the encoder; its weights must still fit.

    Raises:
        InputError: if the architecture cannot be made.
        RuntimeError: if the weights do not fit.
    """
    made = create(encoder.name, **(encoder.args | args))
    made.load_state_dict(encoder.state_dict())
    made.set_constants(*encoder.constants)
    if "resolution" not in args:
        made.resolution = encoder.resolution
    return made


def _makers(name: str) -> tuple[Callable[..., Any], ...]:
    """The constructors that take an encoder's arguments, the outermost first."""
    if name in _OURS:
        return (_OURS[name],)
    if name == "eupe_proxy":
        return (build_proxy, TimmEncoder, timm_class(PROXY))
    timm_name = ARCHITECTURES[name][0] if name in ARCHITECTURES else name
    return (TimmEncoder, timm_class(timm_name)) if timm.is_model(timm_name) else ()
