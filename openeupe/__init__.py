"""OpenEUPE: efficient universal perception encoders.

Everything is an Encoder. A stage turns teachers into students. A recipe is a chain of stages.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openeupe.api.ablate import ablate
    from openeupe.api.curate import curate
    from openeupe.api.distill import distill, plan
    from openeupe.api.evaluate import compare, evaluate
    from openeupe.api.export import export, latency
    from openeupe.api.look import demo, look
    from openeupe.api.quickstart import quickstart
    from openeupe.api.report import write_report
    from openeupe.api.share import push, save
    from openeupe.distillation.short import short_recipe
    from openeupe.encoders import Encoder, Tokens, create, load
    from openeupe.errors import InputError

__all__ = [
    "Encoder",
    "InputError",
    "Tokens",
    "ablate",
    "compare",
    "create",
    "curate",
    "demo",
    "distill",
    "evaluate",
    "export",
    "latency",
    "load",
    "look",
    "plan",
    "push",
    "quickstart",
    "save",
    "short_recipe",
    "write_report",
]

_HOME = {
    "Encoder": "openeupe.encoders",
    "InputError": "openeupe.errors",
    "Tokens": "openeupe.encoders",
    "ablate": "openeupe.api.ablate",
    "compare": "openeupe.api.evaluate",
    "create": "openeupe.encoders",
    "curate": "openeupe.api.curate",
    "demo": "openeupe.api.look",
    "distill": "openeupe.api.distill",
    "evaluate": "openeupe.api.evaluate",
    "export": "openeupe.api.export",
    "latency": "openeupe.api.export",
    "load": "openeupe.encoders",
    "look": "openeupe.api.look",
    "plan": "openeupe.api.distill",
    "push": "openeupe.api.share",
    "quickstart": "openeupe.api.quickstart",
    "save": "openeupe.api.share",
    "short_recipe": "openeupe.distillation.short",
    "write_report": "openeupe.api.report",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: torch takes seconds that `--help` should not."""
    if name == "__version__":
        return import_module("openeupe.version").package_version()
    if name not in _HOME:
        raise AttributeError(f"module 'openeupe' has no attribute {name!r}")
    try:
        return getattr(import_module(_HOME[name]), name)
    except ModuleNotFoundError as error:
        from openeupe.extras import missing_extra

        raise (missing_extra(error) or error) from None


def __dir__() -> list[str]:
    """List the public names before they are imported, for completion and `help`."""
    return sorted({*globals(), *__all__})
