"""The scripts of `speed/` run, on networks that take no time."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import sys
from pathlib import Path

import pytest
import torch
import yaml

from speed import peers, race, step, students
from tests.tiny_recipe import write_colors, write_images

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


def test_the_race_trains_from_its_first_weights_and_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(race, "STUDENTS", {"test_resnet": {}})
    folder = tmp_path / "10" / "test_resnet" / "ours" / "0"
    folder.mkdir(parents=True)
    job = {
        "data": str(write_images(tmp_path / "images")), "out": str(folder), "seed": 0, "batch": 4,
        "student": "test_resnet",
        "steps": 2, "resolution": 64, "teacher_name": "raw_pixels", "teacher_resolution": 64,
        "recipe": "short", "overrides": {"stages.student.statistics.iterations": 1},
    }  # fmt: skip
    race.ours(job)
    cost = json.loads((folder / "cost.json").read_text())
    assert cost["images"] == 8
    assert cost["cpu_s"] > 0
    before = race.first_weights("test_resnet", 0).trunk.state_dict()
    after = torch.load(folder / "student.pt", weights_only=True)
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    race.finish("test_resnet", 0, folder)
    suite = tmp_path / "suite.yaml"
    benchmark = write_colors(tmp_path) | {"domain": "image"}
    suite.write_text(yaml.safe_dump({"name": "colors", "benchmarks": {"knn": benchmark}}))
    given = ["score", "--out", str(tmp_path), "--students", "test_resnet", "--contenders", "ours"]
    race.score(race.options().parse_args([*given, "--suite", str(suite), "--root", str(tmp_path)]))
    assert re.search(r"^test_resnet +ours +0 +knn \d", capsys.readouterr().out, re.M)
