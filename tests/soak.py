"""Train a very small student for very many steps and check that nothing grows.

    python -m tests.soak --steps 100000

Prints memory, open files and threads at twenty moments. Exits with 1 if, from the first quarter to
the end, memory grows by more than 5 % or 20 MB, or the number of files or threads grows at all.
Linux only: it reads /proc.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

import torch

from openeupe.distillation.recipe import load_recipe
from openeupe.distillation.run import run_recipe
from tests.tiny_recipe import write_recipe

MOMENTS = 20


@dataclass(frozen=True)
class Usage:
    """What this process uses after `step` steps. memory: resident megabytes."""

    step: int
    memory: float
    files: int
    threads: int

    @classmethod
    def now(cls, step: int) -> Usage:
        """Usage of this process at this moment."""
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        memory = pages * os.sysconf("SC_PAGE_SIZE") / 1e6
        return cls(step, memory, len(os.listdir("/proc/self/fd")), threading.active_count())


def growth(usages: list[Usage]) -> list[str]:
    """One line for each kind of usage that grew after the first quarter; at least 4 moments."""
    quarter = len(usages) // 4
    early, last = usages[quarter], usages[-1]
    found = []
    if last.memory > early.memory + max(20.0, 0.05 * early.memory):
        found.append(f"memory grew from {early.memory:.0f} to {last.memory:.0f} MB")
    for kind in ("files", "threads"):
        # The fewest of a quarter: a checkpoint that is just being written opens a file.
        before, after = (
            min(getattr(one, kind) for one in part)
            for part in (usages[quarter : 2 * quarter], usages[-quarter:])
        )
        if after > before:
            found.append(f"{kind} grew from {before} to {after}")
    return found


def soak(folder: Path, steps: int, workers: int) -> list[Usage]:
    """Train for `steps` steps in `folder`, measuring as it goes."""
    every = max(steps // MOMENTS, 1)
    recipe = load_recipe(
        write_recipe(
            folder,
            steps,
            log_every=every,
            checkpoint_every=max(every // 2, 1),
        ),
        [f"data.workers={workers}"],
    )
    usages: list[Usage] = []

    def measure(stage: object, record: dict[str, float]) -> None:
        usages.append(usage := Usage.now(int(record["step"])))
        print(
            f"step {usage.step:>7}: {usage.memory:6.0f} MB, {usage.files} files, "
            f"{usage.threads} threads",
            flush=True,
        )

    run_recipe(recipe, folder / "run", on_log=measure)
    return usages


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=0, help="loader processes")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        grown = growth(soak(Path(folder), given.steps, given.workers))
    print("\n".join(grown) or "nothing grew")
    sys.exit(bool(grown))


if __name__ == "__main__":
    main()
