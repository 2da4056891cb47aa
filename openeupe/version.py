"""The version of this package."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def package_version() -> str:
    """Return the installed version. "unknown" in a source tree that is not installed."""
    try:
        return version("openeupe")
    except PackageNotFoundError:
        return "unknown"
