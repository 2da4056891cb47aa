"""Functions are short, take few parameters, and are documented.

Commands are excepted: each option is a parameter with its help text. What they do is short.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import openeupe

from .groups import LONGEST, SHARED, TOGETHER, group_of

PACKAGE = Path(openeupe.__file__).parent
LINES, PARAMETERS = 60, 8
COMMAND_LINES, COMMAND_BODY = 90, 45
WORDS = 12  # of the first sentence of a docstring
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def functions() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Every function and method of the package, with where it is defined."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{path.relative_to(PACKAGE)}:{node.lineno} {node.name}", node


def is_command(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether the command line calls it with the options that a user gave."""
    decorators = {ast.unparse(one) for one in function.decorator_list}
    return bool(decorators & {"app.command()", "app.callback()"})


def lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def test_long_fixtures_are_made_by_one_process(request: pytest.FixtureRequest) -> None:
    """Of the tests that are carried out now."""
    apart = [
        f"{item.nodeid} uses {name}"
        for item in request.session.items
        for name in SHARED.keys() & set(getattr(item, "fixturenames", ()))
        if group_of(item.nodeid) != name
    ]
    assert apart == []


def test_groups_of_tests_name_files_that_are_there() -> None:
    files = [name for names in TOGETHER.values() for name in names]
    files += [name for name in LONGEST if name not in TOGETHER]
    assert [file for file in files if not (PACKAGE.parent / file).exists()] == []


def test_functions_are_short() -> None:
    long = []
    for where, function in functions():
        most = COMMAND_LINES if is_command(function) else LINES
        body = lines(function) - (function.body[0].lineno - function.lineno)
        if lines(function) > most or (is_command(function) and body > COMMAND_BODY):
            long.append(f"{where}: {lines(function)} lines, {body} of them its body")
    assert long == []


def test_public_functions_take_few_parameters() -> None:
    many = []
    for where, function in functions():
        given = function.args
        names = [one.arg for one in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
        count = len([name for name in names if name not in ("self", "cls")])
        if not function.name.startswith("_") and not is_command(function) and count > PARAMETERS:
            many.append(f"{where}: {count} parameters")
    assert many == []


def first_sentence(docstring: str) -> str:
    """The first sentence, in which code, shapes and brackets count as one word at most."""
    text = " ".join(docstring.strip().partition("\n\n")[0].split())
    text = re.sub(r"\([^)]*\)", "", re.sub(r"`[^`]*`|\[[^\]]*\]", "X", text))
    found = re.match(r".+?[.:?!](?=\s|$)", text)
    return found[0] if found else text


def public(tree: ast.Module | ast.ClassDef, before: str = "") -> Iterator[tuple[str, Definition]]:
    """Public classes, functions and methods of a file, by their names with dots."""
    for node in tree.body:
        if isinstance(node, Definition) and not node.name.startswith("_"):
            yield before + node.name, node
            if isinstance(node, ast.ClassDef):
                yield from public(node, f"{before}{node.name}.")


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=str)
def test_public_names_have_a_docstring_that_begins_with_a_short_sentence(path: Path) -> None:
    """A method that a class inherits and replaces may have the docstring of the inherited one."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    wrong = []
    docstrings = {"the module": ast.get_docstring(tree)}
    for name, node in public(tree):
        if name == "openeupe":  # the application itself has its help text
            continue
        docstrings[name] = ast.get_docstring(node)
        if docstrings[name] is None and "." in name:
            parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
            found = importlib.import_module(".".join(parts))
            for part in name.split("."):
                found = getattr(found, part)
            docstrings[name] = inspect.getdoc(found)
    for name, text in docstrings.items():
        sentence = first_sentence(text or "")
        if not sentence or len(re.findall(r"\S*\w\S*", sentence)) > WORDS:
            wrong.append(f"{name}: {sentence or 'no docstring'}")
    assert wrong == []
