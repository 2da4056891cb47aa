"""Benchmarks run, on networks that take no time; their figures come from elsewhere."""

from __future__ import annotations

import importlib
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import domain_expert, family, peers, step
from openeupe import encoders

DOCS = Path(__file__).parent.parent / "docs"
TINY = ["--batch", "2", "--rounds", "1", "--threads", "1"]


def test_the_step_and_its_peers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nets = ["--teacher", "test_vit", "--student", "test_vit2", "--side", "160", "--hidden", "8"]
    monkeypatch.setattr(sys, "argv", ["step", *TINY, *nets])
    step.main()
    out = capsys.readouterr().out
    assert re.search(r"^ +2 none .* 0$", out, re.M)
    monkeypatch.setattr(sys, "argv", ["peers", *TINY, *nets])
    peers.main()
    table = capsys.readouterr().out
    rows = {line[:28].strip(): line[28:].split() for line in table.splitlines()[3:]}
    mine = ("ours", "ours, loss zeroed", "ours, small heads", "ours, stored outputs")
    assert {*mine, "student alone", "timm"} <= rows.keys()
    assert all(rows[name][-1] == "0" for name in mine)  # host reads
    assert all(float(row[0]) > 0 for row in rows.values())


def test_the_family(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(family, "TEACHER", {"encoder": "test_vit"})
    names = ("test_vit2", "test_convnext")
    monkeypatch.setattr(family, "STUDENTS", {name: {"encoder": name} for name in names})
    monkeypatch.setattr(family, "SIDE", 64)
    monkeypatch.setattr(sys, "argv", ["family", *TINY])
    family.main()
    assert re.search(r"CPU +time: .* x\n", capsys.readouterr().out)


@pytest.mark.parametrize("domain", ["depth", "scene"])
def test_an_expert_learns_its_domain(
    domain: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder, labels, _ = domain_expert._SETS[domain]
    random = np.random.default_rng(0)
    for number in range(4):
        for inside, shape in (("images", (64, 80, 3)), (labels, (64, 80))):
            (tmp_path / folder / inside).mkdir(parents=True, exist_ok=True)
            pixels = random.integers(0, 12, shape, dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / folder / inside / f"{number}.png")
    torch.manual_seed(0)
    start = encoders.create("test_efficientnet")
    before = {key: value.clone() for key, value in start.state_dict().items()}
    monkeypatch.setattr(domain_expert.openeupe, "load", lambda _: start)
    monkeypatch.setattr(domain_expert, "_CROP", (64, 64))
    monkeypatch.setattr(domain_expert, "_STEPS", 2)
    domain_expert.main(tmp_path, domain)
    after = encoders.load(tmp_path / "experts" / domain).state_dict()
    assert any(not torch.equal(after[key], value) for key, value in before.items())


@pytest.mark.parametrize(
    "line", re.findall(r"^python -m (benchmarks\..+)$", (DOCS / "benchmarks.md").read_text(), re.M)
)
def test_commands_in_the_docs_have_options_that_exist(line: str) -> None:
    module, *arguments = shlex.split(line)
    importlib.import_module(module).options().parse_args(arguments)
