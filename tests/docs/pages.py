"""The README and the pages of docs, and what they tell a reader to type."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from ..conftest import call

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(language: str) -> list[Any]:
    """The code blocks of a language, each named after its page."""
    fence = re.compile(rf"^```{language}\n(.*?)^```", re.S | re.M)
    return [
        pytest.param(block, id=f"{page.stem}-{i}")
        for page in PAGES
        for i, block in enumerate(fence.findall(page.read_text()))
    ]


def commands(verb: str) -> list[Any]:
    """The lines of the bash blocks that begin with `openeupe VERB`."""
    lines = [line for block in blocks("bash") for line in block.values[0].splitlines()]
    return list(dict.fromkeys(line for line in lines if line.startswith(f"openeupe {verb}")))


def typed(line: str, *more: str, without: tuple[str, ...] = ()) -> str:
    """What a documented line prints, with `more` at its end and some of its words left out."""
    words = [word for word in shlex.split(line)[1:] if word not in without]
    return call(*words, *more)
