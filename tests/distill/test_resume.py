"""`kill -9` at any moment, run again: the same weights and metrics to the last bit."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .killed import weights

PROGRAM = Path(__file__).with_name("killed.py")


KINDS = {
    "after add",  # statistics
    "after targets", "before step", "after step", "after clip_grad_norm_",  # training
    "half of a checkpoint", "after flush", "before rename", "before rmtree",  # checkpoints
    "half of model.safetensors", "half of heads.safetensors", "before replace",  # the end
    "after write",  # metrics
}  # fmt: skip


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("part", ["thirds", pytest.param("all", marks=[pytest.mark.slow])])
def test_a_kill_at_every_kind_of_moment_changes_nothing(
    recipe_file: Path, tmp_path: Path, part: str
) -> None:
    ran = subprocess.run(
        [sys.executable, str(PROGRAM), str(recipe_file), str(tmp_path), part],
        capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-2000:]
    uninterrupted, *moments = (json.loads(line) for line in ran.stdout.splitlines())
    places = [m["moment"].split(": ") for m in moments]
    assert {kind for _, kind in places} >= KINDS
    for stage in ("proxy", "student", "finetuned"):
        assert sum(where == stage for where, _ in places) >= 5
    assert all(m["killed"] for m in moments)
    different = [m["moment"] for m in moments if m["weights"] != uninterrupted["weights"]]
    assert not different
    print(f"killed at {len(moments)} moments")


def test_kills_from_outside_at_random_moments_change_nothing(
    recipe_file: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "openeupe", "distill", str(recipe_file), "--run"]
    subprocess.run([*command, str(tmp_path / "whole")], check=True, capture_output=True)
    folder = tmp_path / "killed"
    wait = random.Random(0)
    kills = 0
    while not (folder / "finetuned" / "finished.json").exists() and kills < 4:
        process = subprocess.Popen([*command, str(folder)], stdout=subprocess.DEVNULL)
        while process.poll() is None and not (folder / "recipe.yaml").exists():
            time.sleep(0.01)
        time.sleep(wait.uniform(0, 2))
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
    subprocess.run([*command, str(folder)], check=True, capture_output=True)
    assert weights(folder) == weights(tmp_path / "whole")
    assert kills
