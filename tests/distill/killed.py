"""Kills a run at every kind of moment and carries it on: the program behind `test_resume.py`.

A run is a chain of events: gradients, optimizer steps, files written, flushed, renamed, removed.
The first child counts them. Then, for one event of each kind in each stage, a child kills itself
there with `kill -9`, and another child carries the same run on. Everything happens in forked
children, because that costs a second and importing torch costs five; forking is safe because this
process itself never computes. Prints one JSON line a moment: `{"moment", "killed", "weights"}`.

    python killed.py RECIPE.yaml FOLDER [thirds]

With `thirds`, each kind of event is tried in one of the three stages, in turn.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from openeupe import files
from openeupe.distill import checkpoint, metrics, run, stage, student, trainer
from openeupe.distill.recipe import load_recipe
from openeupe.encoders import folder as encoder_folder


class Events:
    """Counts events; kills the process at number `fatal`."""

    def __init__(self, fatal: int | None) -> None:
        self.fatal = fatal
        self.stage = "start"
        self.seen: list[str] = []

    def tick(self, label: str) -> None:
        if len(self.seen) == self.fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        self.seen.append(f"{self.stage}: {label}")

    def watch(self, owner: Any, name: str) -> None:
        """An event before and one after each call of `owner.name`."""
        original: Callable[..., Any] = getattr(owner, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            self.tick(f"before {name}")
            result = original(*args, **kwargs)
            self.tick(f"after {name}")
            return result

        setattr(owner, name, watched)

    def watch_file(self, owner: Any) -> None:
        """An event when half of a safetensors file is on disk."""
        original = owner.save_file

        def watched(tensors: Any, path: Path) -> None:
            original(tensors, path)
            whole = Path(path).read_bytes()
            Path(path).write_bytes(whole[: len(whole) // 2])
            self.tick(f"half of {Path(path).name}")
            Path(path).write_bytes(whole)

        owner.save_file = watched

    def watch_shards(self) -> None:
        """An event when half of each of a checkpoint's files is on disk."""
        original = checkpoint.write_tensors

        def watched(folder: Path, *args: Any) -> None:
            original(folder, *args)
            wholes = {path: path.read_bytes() for path in folder.glob("*.safetensors")}
            for path, whole in wholes.items():
                path.write_bytes(whole[: len(whole) // 2])
            self.tick("half of a checkpoint")
            for path, whole in wholes.items():
                path.write_bytes(whole)

        checkpoint.write_tensors = watched

    def watch_stages(self) -> None:
        original = run._run_stage

        def watched(one: Any, name: str, *args: Any) -> None:
            self.stage = name
            original(one, name, *args)

        run._run_stage = watched


def child(recipe: Path, folder: Path, fatal: int | None, report: Path) -> int:
    """Run the recipe in a forked child; its exit status, negative if killed."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            torch.set_num_threads(1)
            events = Events(fatal)
            events.watch_stages()
            events.watch(stage.Moments, "add")
            events.watch(stage.Stage, "targets")
            events.watch(torch.nn.utils, "clip_grad_norm_")
            events.watch(torch.optim.AdamW, "step")
            events.watch(trainer.Trainer, "step")
            events.watch(metrics.MetricsLog, "write")
            for owner in (checkpoint, files):
                events.watch(owner, "flush")
            events.watch(pathlib.Path, "rename")
            events.watch(pathlib.Path, "replace")
            events.watch(shutil, "rmtree")
            events.watch_shards()
            for owner in (student, encoder_folder):
                events.watch_file(owner)
            run.run_recipe(load_recipe(recipe), folder, console=Console(quiet=True))
            report.write_text(json.dumps(events.seen))
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def weights(folder: Path) -> str:
    """One hash over the weights, heads and statistics of all stages, and over the metrics."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.safetensors")):
        digest.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    for path in sorted(folder.rglob("metrics.jsonl")):
        for record in metrics.read_metrics(path):
            timeless = {k: v for k, v in record.items() if k not in ("images_per_s", "waiting")}
            digest.update(json.dumps(timeless).encode())
    return digest.hexdigest()


def main(recipe: Path, folder: Path, thirds: bool) -> None:
    report = folder / "events.json"
    whole = folder / "whole"
    assert child(recipe, whole, None, report) == 0
    print(json.dumps({"moment": "none", "killed": False, "weights": weights(whole)}), flush=True)
    positions: dict[str, list[int]] = {}
    for number, label in enumerate(json.loads(report.read_text())):
        positions.setdefault(label, []).append(number)
    kinds: dict[str, list[str]] = {}
    for moment in positions:
        kinds.setdefault(moment.split(": ")[1], []).append(moment)
    for turn, same in enumerate(kinds.values()):
        for moment in [same[turn % len(same)]] if thirds else same:
            numbers = positions[moment]
            one = folder / "killed"
            killed = child(recipe, one, numbers[len(numbers) // 2], report) == -signal.SIGKILL
            assert child(recipe, one, None, report) == 0, moment
            line = {"moment": moment, "killed": killed, "weights": weights(one)}
            print(json.dumps(line), flush=True)
            shutil.rmtree(one)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), "thirds" in sys.argv[3:])
