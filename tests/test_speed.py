"""The scripts of `speed/` run, on networks that take no time."""

from __future__ import annotations

import importlib
import re
import shlex
import sys
from pathlib import Path

import pytest

from speed import peers, step, students

DOCS = Path(__file__).parent.parent / "docs"
TINY = ["--batch", "2", "--rounds", "1", "--threads", "1"]


def test_the_step_and_its_peers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nets = [
        "--teacher",
        "test_vit",
        "--student",
        "test_vit2",
        "--resolution",
        "160",
        "--hidden",
        "8",
    ]
    monkeypatch.setattr(sys, "argv", ["step", *TINY, *nets])
    step.main()
    out = capsys.readouterr().out
    assert re.search(r"^ +2 none .* 0$", out, re.M)
    monkeypatch.setattr(sys, "argv", ["peers", *TINY, *nets])
    peers.main()
    table = capsys.readouterr().out
    rows = {line[:28].strip(): line[28:].split() for line in table.splitlines()[3:]}
    mine = ("ours", "ours, loss zeroed", "ours, small heads", "ours, cached outputs")
    assert {*mine, "student alone", "timm"} <= rows.keys()
    assert all(rows[name][-1] == "0" for name in mine)  # host reads
    assert all(float(row[0]) > 0 for row in rows.values())


def test_students_of_one_pass(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(students, "TEACHER", {"encoder": "test_vit"})
    names = ("test_vit2", "test_convnext")
    monkeypatch.setattr(students, "STUDENTS", {name: {"encoder": name} for name in names})
    monkeypatch.setattr(students, "RESOLUTION", 64)
    monkeypatch.setattr(sys, "argv", ["students", *TINY])
    students.main()
    assert re.search(r"CPU +time: .* x\n", capsys.readouterr().out)


@pytest.mark.parametrize(
    "line", re.findall(r"^python -m (speed\..+)$", (DOCS / "speed.md").read_text(), re.M)
)
def test_commands_in_the_docs_have_options_that_exist(line: str) -> None:
    module, *arguments = shlex.split(line)
    importlib.import_module(module).options().parse_args(arguments)
