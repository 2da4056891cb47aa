"""The README of `experiments/` lists every script; the package imports none of them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


def test_the_readme_lists_every_script_and_how_to_run_it() -> None:
    text = (EXPERIMENTS / "README.md").read_text()
    scripts = {f.stem for f in EXPERIMENTS.glob("*.py") if "__main__" in f.read_text()}
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.M)) == scripts
    assert set(re.findall(r"python -m experiments\.(\w+)", text)) == scripts
    for page in re.findall(r"\]\((\.\./docs/[\w.]+)\)", text):
        assert (EXPERIMENTS / page).is_file(), page


def test_the_package_does_not_import_them() -> None:
    for file in (EXPERIMENTS.parent / "openeupe").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & {"experiments", "speed"}, file
