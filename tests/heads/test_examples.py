"""Examples in docstrings work."""

from __future__ import annotations

import doctest
from importlib import import_module

import pytest

import openeupe.heads

MODULES = "depth fitting linear regions saved schedule segmentation settings"


@pytest.mark.parametrize("module", MODULES.split())
def test_examples(module: str) -> None:
    found = doctest.testmod(import_module(f"{openeupe.heads.__name__}.{module}"))
    assert found.attempted
    assert not found.failed
