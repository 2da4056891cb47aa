"""Importing the package changes no warning filter; a run ignores known warnings while it lasts."""

from __future__ import annotations

import ast
import warnings

import pytest

from openeupe.known_warnings import known_warnings_ignored
from tests.test_rooms import MODULES


def test_a_block_ignores_known_warnings_and_restores_the_filters() -> None:
    before = list(warnings.filters)
    with known_warnings_ignored():
        warnings.warn("torch.distributed is disabled, unavailable", UserWarning, stacklevel=1)
    assert warnings.filters == before
    with pytest.warns(UserWarning, match="is disabled"):
        warnings.warn("torch.distributed is disabled, unavailable", UserWarning, stacklevel=1)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_no_module_changes_a_filter_when_it_is_imported(module: str) -> None:
    ahead: list[ast.AST] = [ast.parse(MODULES[module].read_text(encoding="utf-8"))]
    while ahead:
        node = ahead.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            assert node.func.attr not in ("filterwarnings", "simplefilter"), node.lineno
        ahead += ast.iter_child_nodes(node)
