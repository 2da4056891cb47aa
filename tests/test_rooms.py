"""Which modules of the package import which, by every import statement, also inside functions."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "openeupe"


def _modules() -> dict[str, Path]:
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = _modules()


@cache
def _statements(module: str) -> list[ast.AST]:
    """Every import statement of a module, wherever it stands."""
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]


def imports(module: str) -> Iterator[tuple[str, int]]:
    """(imported module of the package, line), in the order of the statements."""
    for node in _statements(module):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        else:
            assert isinstance(node, ast.ImportFrom)
            assert not node.level, f"{module}:{node.lineno}: a relative import"
            origin = node.module or ""
            found = [
                name if (name := f"{origin}.{alias.name}") in MODULES else origin
                for alias in node.names
            ]
        yield from ((name, node.lineno) for name in found if name.split(".")[0] == "openeupe")


@pytest.mark.parametrize(
    "module", ["run_folder", "student", "saved", "chain", "adapter_heads", "standardize"]
)
def test_what_reads_a_run_does_not_import_the_trainer(module: str) -> None:
    training = {f"openeupe.distill.{name}" for name in ("run", "trainer", "stage", "students")}
    assert _reached(f"openeupe.distill.{module}") & training == set()


def test_nobody_imports_the_run_through_the_trainer() -> None:
    own = re.compile(r"^class Run\b", re.MULTILINE)
    through = [
        f"{module}:{node.lineno}"
        for module in MODULES
        for node in _statements(module)
        if isinstance(node, ast.ImportFrom)
        and "Run" in [alias.name for alias in node.names]
        and not own.search(MODULES[node.module or ""].read_text(encoding="utf-8"))
    ]
    assert through == []


def test_contributing_names_every_room_and_ground_floor_module() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([\w/]+)`", text.partition("**Where things go.**")[2]))
    tops = {module.split(".")[1] for module in MODULES if module != "openeupe"}
    assert tops - {"__main__"} - named == set()


def _reached(module: str) -> set[str]:
    """Every module of the package that a module imports, directly or by way of others."""
    found: set[str] = set()
    ahead = [name for name, _ in imports(module)]
    while ahead:
        if (name := ahead.pop()) in MODULES and name not in found:
            found.add(name)
            ahead += [other for other, _ in imports(name)]
    return found
