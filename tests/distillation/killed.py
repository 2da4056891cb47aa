"""Kills a run at every kind of moment and carries it on: the program behind `test_resume.py`.

A run is a chain of events: gradients, optimizer steps, files written, flushed, renamed, removed.
The first child counts them. Then, for one event of each kind in each stage, a child kills itself
there with `kill -9`, and another child carries the same run on. Everything happens in forked
children, because that costs a second and importing torch costs five; forking is safe because this
process itself never computes. Prints one JSON line a moment: `{"moment", "killed", "same"}`, the
last being whether weights and metrics are those of the run that nobody killed.

    python killed.py RECIPE.yaml FOLDER all|thirds|outside

With `thirds`, each kind of event is tried in one of the three stages, in turn, and the run ends
with that stage; the stages before it are those of the first child. With `outside`, children are
killed at random moments, by this process.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
import torch.utils.tensorboard  # here: each child would import it

from openeupe import files
from openeupe.data import open_source
from openeupe.distillation import checkpoint, metrics, run, stage, student, trainer
from openeupe.distillation.recipe import Recipe, load_recipe
from openeupe.encoders import openeupe_folder as encoder_folder


class Events:
    """Counts events; kills the process at a moment's event of number `fatal`."""

    def __init__(self, fatal: tuple[str, int] | None) -> None:
        self.fatal = fatal
        self.stage = "start"
        self.seen: Counter[str] = Counter()

    def tick(self, label: str) -> None:
        moment = f"{self.stage}: {label}"
        if self.fatal == (moment, self.seen[moment]):
            os.kill(os.getpid(), signal.SIGKILL)
        self.seen[moment] += 1

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


def begin(recipe: Recipe, folder: Path, report: Path, fatal: tuple[str, int] | None = None) -> int:
    """Run the recipe in a forked child; its number."""
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
            if folder.exists():  # the first child found nothing wrong with it
                run.check_recipe = lambda recipe: [open_source(s) for s in recipe.data.sources]
            run.run_recipe(recipe, folder)
            report.write_text(json.dumps(events.seen))
            status = 0
        finally:
            os._exit(status)
    return pid


def end(pid: int) -> int:
    """Wait for a child; its exit status, negative if killed."""
    _, status = os.waitpid(pid, 0)
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def weights(folder: Path, stages: Iterable[str]) -> str:
    """One hash over the weights, heads and statistics of these stages, and over their metrics."""
    digest = hashlib.sha256()
    files = [path for stage in stages for path in sorted((folder / stage).rglob("*.*"))]
    for path in (path for path in files if path.suffix == ".safetensors"):
        digest.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    for path in (path for path in files if path.name == "metrics.jsonl"):
        for record in metrics.read_metrics(path):
            timeless = {k: v for k, v in record.items() if k not in ("images_per_s", "waiting")}
            digest.update(json.dumps(timeless).encode())
    return digest.hexdigest()


def begun(recipe: Recipe, whole: Path, folder: Path, stage: str) -> Recipe:
    """Lay the finished stages before `stage` into `folder`; the recipe that ends with it."""
    names = list(recipe.stages)
    until = names[: names.index(stage) + 1]
    ended = recipe.model_copy(update={"stages": {name: recipe.stages[name] for name in until}})
    for name in until[:-1]:
        shutil.copytree(whole / name, folder / name)
    return ended


def killed_from_outside(
    recipe: Recipe, whole: Path, one: Path, report: Path, seconds: float
) -> dict[str, Any]:
    """Kill a run four times, at moments drawn at random, unless it ends before.

    seconds: what a whole run takes on this machine.
    """
    wait = random.Random(0)
    kills = 0
    while not (one / list(recipe.stages)[-1] / "finished.json").exists() and kills < 4:
        pid = begin(recipe, one, report)
        time.sleep(wait.uniform(0, 0.6 * seconds))
        os.kill(pid, signal.SIGKILL)
        kills += end(pid) == -signal.SIGKILL
    assert end(begin(recipe, one, report)) == 0
    same = weights(one, recipe.stages) == weights(whole, recipe.stages)
    return {"moment": f"{kills} times from outside", "killed": kills > 0, "same": same}


def main(path: Path, folder: Path, mode: str) -> None:
    thirds = mode == "thirds"
    report = folder / "events.json"
    whole = folder / "whole"
    recipe = load_recipe(path)
    started = time.perf_counter()
    assert end(begin(recipe, whole, report)) == 0
    seconds = time.perf_counter() - started
    if mode == "outside":
        print(json.dumps(killed_from_outside(recipe, whole, folder / "killed", report, seconds)))
        return
    counts: dict[str, int] = json.loads(report.read_text())
    kinds: dict[str, list[str]] = {}
    for moment in counts:
        kinds.setdefault(moment.split(": ")[1], []).append(moment)
    for turn, same in enumerate(kinds.values()):
        for moment in [same[turn % len(same)]] if thirds else same:
            one = folder / "killed"
            stage = moment.split(": ")[0]
            short = thirds and stage in recipe.stages
            part = begun(recipe, whole, one, stage) if short else recipe
            fatal = (moment, counts[moment] // 2)
            killed = end(begin(part, one, report, fatal)) == -signal.SIGKILL
            assert end(begin(part, one, report)) == 0, moment
            same_weights = weights(one, part.stages) == weights(whole, part.stages)
            line = {"moment": moment, "killed": killed, "same": same_weights}
            print(json.dumps(line), flush=True)
            shutil.rmtree(one)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
