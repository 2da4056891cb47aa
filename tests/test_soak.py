"""The soak script measures growth, and a short run of it is flat."""

from __future__ import annotations

import subprocess
import sys

import pytest

from .soak import Usage, growth


def test_growth_is_found() -> None:
    flat = [Usage(step, 500.0, 20, 4) for step in range(20)]
    assert growth(flat) == []
    assert growth([*flat[:-1], Usage(19, 500.0, 21, 5)]) == []  # a file and a thread of that moment
    leaking = [Usage(step, 500.0 + 10 * step, 20 + step, 4) for step in range(20)]
    assert growth(leaking) == [
        "memory grew from 550 to 690 MB",
        "files grew from 25 to 35",
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_short_soak_is_flat() -> None:
    """In a process of its own: pytest keeps every log record, which is growth, too."""
    ran = subprocess.run(
        [sys.executable, "-m", "tests.soak", "--steps", "200"],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr[-2000:]
    lines = ran.stdout.splitlines()
    assert lines[-1] == "nothing grew"
    assert len(lines) == 21
