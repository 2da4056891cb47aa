"""Durations in settings: `90s`, `10m`, `1.5h`, `2d`."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds_of(text: str) -> float:
    """Return the seconds of a duration.

    Example:
        >>> seconds_of("1.5h")
        5400.0

    Raises:
        ValueError: if it is none.
    """
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)([smhd])", text)
    if not found or not float(found[1]):
        raise ValueError(f"{text!r} is not a duration: write 90s, 10m, 1.5h or 2d")
    return float(found[1]) * _UNITS[found[2]]


def _checked(text: str) -> str:
    seconds_of(text)
    return text


Duration = Annotated[str, AfterValidator(_checked)]
