"""Functions are short, and take few parameters.

Commands are excepted: each option is a parameter with its help text. What they do is short.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import openeupe

PACKAGE = Path(openeupe.__file__).parent
LINES, PARAMETERS = 60, 8
COMMAND_LINES, COMMAND_BODY = 90, 45


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
