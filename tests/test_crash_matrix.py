"""A slice of `tests/crash_matrix.py`: one kill, one stop and one pair of a quick command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

MATRIX = Path(__file__).with_name("crash_matrix.py")
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def matrix(folder: Path, *words: str) -> str:
    ran = subprocess.run([sys.executable, str(MATRIX), str(folder), *words],
                         capture_output=True, text=True, timeout=3000, check=False)  # fmt: skip
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]
    return ran.stdout


def test_a_disturbed_command_given_again_ends_as_if_undisturbed(tmp_path: Path) -> None:
    told = matrix(tmp_path / "m", "--kill", "1", "--stop", "1", "--pair", "1",
                  "--commands", "save")  # fmt: skip
    assert "save                 kill 1/1, stop 1/1" in told
    assert "save + save          pair 1/1" in told


@pytest.mark.slow
def test_every_command_withstands_every_disturbance(tmp_path: Path) -> None:
    root = os.geteuid() == 0
    disks = ("--cut", "6", "--full", "6") if root else ()
    matrix(tmp_path / "m", "--kill", "12", "--stop", "6", "--pair", "21", *disks)
