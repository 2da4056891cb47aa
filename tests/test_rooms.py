"""Imports between the package's rooms run one way, those inside functions and for types included.

The order is that of CONTRIBUTING.md, "Where things go". There are no exceptions.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "openeupe"

GROUND = "ground floor"
_INPUT = {GROUND, "encoders", "data", "datasets"}
_MATTER = _INPUT | {"heads"}
_WORK = {"curation", "distillation", "evaluation", "visualization", "deployment"}
# room -> the rooms that its modules may import from, besides itself
MAY_IMPORT: dict[str, set[str]] = {
    GROUND: set(),
    "encoders": {GROUND},
    "data": {GROUND},
    "datasets": {GROUND, "data"},
    "heads": _INPUT,
    **dict.fromkeys(_WORK, _MATTER),
    "ablation": _MATTER | {"distillation", "evaluation"},
    "report": _MATTER | _WORK,
    "share": _MATTER | _WORK,
    "api": _MATTER | _WORK | {"ablation", "report", "share"},
    "cli": _MATTER | _WORK | {"ablation", "report", "share", "api", "openeupe"},
    "openeupe": _MATTER | _WORK | {"api"},
    "__main__": {"cli"},
}


def _modules() -> dict[str, Path]:
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = _modules()


def room(module: str) -> str:
    """The room of a module of the package: its folder, or its own name where it has none."""
    if module == "openeupe":
        return module
    name = module.split(".")[1]
    return name if name in MAY_IMPORT else GROUND


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


def test_imports_between_rooms_run_one_way() -> None:
    back = [
        f"{module}:{line} imports {other}"
        for module in MODULES
        for other, line in imports(module)
        if room(other) not in {room(module), *MAY_IMPORT[room(module)]}
    ]
    assert back == []


def test_no_module_imports_itself_by_way_of_others() -> None:
    assert [module for module in MODULES if module in _reached(module)] == []


@pytest.mark.parametrize(
    "module", ["run_folder", "student", "saved", "chain", "adapter_heads", "standardize"]
)
def test_what_reads_a_run_does_not_import_the_trainer(module: str) -> None:
    training = {f"openeupe.distillation.{name}" for name in ("run", "trainer", "stage", "students")}
    assert _reached(f"openeupe.distillation.{module}") & training == set()


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


def test_only_the_commands_print() -> None:
    """Library code reports to `openeupe.progress`; what is drawn of it is the commands' matter."""
    drawing = ("rich", "typer")
    found = []
    for module, path in MODULES.items():
        if module.startswith("openeupe.cli"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            prints = (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id == "print"
                and not any(word.arg == "file" for word in node.keywords)
            )
            if prints or any(name.split(".")[0] in drawing for name in names):
                found.append(f"{module}:{node.lineno}")
    assert found == []


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
