"""OpenEUPE: efficient universal perception encoders.

Everything is an Encoder. A stage turns teachers into students. A recipe is a chain of stages.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openeupe.api.curate import curate
    from openeupe.api.distill import distill, plan
    from openeupe.encoders import Encoder, Tokens, create, load
    from openeupe.errors import InputError

__all__ = ["Encoder", "InputError", "Tokens", "create", "curate", "distill", "load", "plan"]

_HOME = {
    "Encoder": "openeupe.encoders",
    "InputError": "openeupe.errors",
    "Tokens": "openeupe.encoders",
    "create": "openeupe.encoders",
    "curate": "openeupe.api.curate",
    "distill": "openeupe.api.distill",
    "load": "openeupe.encoders",
    "plan": "openeupe.api.distill",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: torch takes seconds that `--help` should not."""
    if name == "__version__":
        return import_module("openeupe.version").package_version()
    if name not in _HOME:
        raise AttributeError(f"module 'openeupe' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    """List the public names before they are imported, for completion and `help`."""
    return sorted({*globals(), *__all__})
