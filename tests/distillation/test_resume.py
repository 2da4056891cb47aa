"""`kill -9` at any moment, run again: the same weights and metrics to the last bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).with_name("killed.py")
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


KINDS = {
    "after add",  # statistics
    "after targets", "before step", "after step", "after clip_grad_norm_",  # training
    "half of a checkpoint", "after flush", "before rename", "before rmtree",  # checkpoints
    "half of model.safetensors", "half of heads.safetensors", "before replace",  # the end
    "after write",  # metrics
}  # fmt: skip


def moments(recipe: Path, folder: Path, mode: str) -> list[dict[str, Any]]:
    """What `killed.py` says of each moment."""
    ran = subprocess.run(
        [sys.executable, str(PROGRAM), str(recipe), str(folder), mode],
        capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-2000:]
    return [json.loads(line) for line in ran.stdout.splitlines()]


@pytest.mark.parametrize("part", ["thirds", pytest.param("all", marks=[pytest.mark.slow])])
def test_a_kill_at_every_kind_of_moment_changes_nothing(
    recipe_file: Path, tmp_path: Path, part: str
) -> None:
    found = moments(recipe_file, tmp_path, part)
    places = [m["moment"].split(": ") for m in found]
    assert {kind for _, kind in places} >= KINDS
    for stage in ("proxy", "student", "finetuned"):
        assert sum(where == stage for where, _ in places) >= 5
    assert all(m["killed"] for m in found)
    assert not [m["moment"] for m in found if not m["same"]]
    print(f"killed at {len(found)} moments")


def test_kills_from_outside_at_random_moments_change_nothing(
    recipe_file: Path, tmp_path: Path
) -> None:
    (found,) = moments(recipe_file, tmp_path, "outside")
    assert found["killed"]
    assert found["same"]
