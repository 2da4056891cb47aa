"""Names that are safe as files, folders and headings."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

from openeupe.limits import NAME_CHARACTERS

_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_-])?")
_TITLE = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.+&,=% -]*[A-Za-z0-9_+%-])?")


def _check(name: str, pattern: re.Pattern[str], also: str) -> str:
    if len(name) > NAME_CHARACTERS or not pattern.fullmatch(name):
        shown = name if len(name) <= NAME_CHARACTERS else f"{name[:20]}..."
        raise ValueError(
            f"{shown!r} cannot be a name: it needs 1 to {NAME_CHARACTERS} letters, digits, "
            f"_, -, .{also}, the first of them a letter, a digit or _, and no . at the end"
        )
    return name


def check_name(name: str) -> str:
    """Return `name` if it can be that of a file or folder.

    Raises:
        ValueError: naming what is allowed.
    """
    return _check(name, _NAME, "")


def check_title(name: str) -> str:
    """Return `name` if it can name a folder and a table's row: spaces are allowed.

    Raises:
        ValueError: naming what is allowed.
    """
    return _check(name, _TITLE, ", +, &, =, %, commas and spaces")


Name = Annotated[str, AfterValidator(check_name)]  # recipes, stages, suites, benchmarks, studies
Title = Annotated[str, AfterValidator(check_title)]  # arms, tables, effects
