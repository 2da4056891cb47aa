"""Kill each rank of a torchrun job many times, and check that the run ends as if undisturbed.

    python -m tests.rank_kills --times 20

A job of two processes on the CPU runs a recipe; each time one rank gets SIGKILL at a random moment,
in turn, and the next job carries the same run on. Prints one line a kill. Exits with 1 unless no
process outlives its job and the final weights are those of a job that nobody killed, to the
last bit.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.distillation.killed import weights
from tests.tiny_recipe import write_recipe

RANKS = 2


def start(recipe: Path, run: Path) -> subprocess.Popen[bytes]:
    """A torchrun job that carries out `recipe` in `run`."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(RANKS)]
    own_port = ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    command = ["-m", "--", "openeupe", "distill", recipe, "--run", run, "--device", "cpu"]
    return subprocess.Popen(
        [*torchrun, *own_port, *map(str, command)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def ranks(job: subprocess.Popen[bytes]) -> dict[int, int]:
    """Process numbers of the job's ranks, by rank; those that have started Python."""
    found = {}
    for process in Path("/proc").iterdir():
        try:
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            variables = (process / "environ").read_bytes().split(b"\0")
        except (OSError, ValueError, IndexError):
            continue
        rank = [v for v in variables if v.startswith(b"LOCAL_RANK=")]
        if parent == job.pid and rank:
            found[int(rank[0].split(b"=")[1])] = int(process.name)
    return found


def kill_one(recipe: Path, run: Path, rank: int, delay: float) -> str:
    """Start a job, kill one of its ranks after `delay` seconds; a line about what happened."""
    job = start(recipe, run)
    while len(alive := ranks(job)) < RANKS and job.poll() is None:
        time.sleep(0.05)
    time.sleep(delay)
    alive = ranks(job) or alive
    ended = job.poll() is not None
    if not ended and rank in alive:
        os.kill(alive[rank], signal.SIGKILL)
    code = job.wait(timeout=300)
    time.sleep(0.5)
    left = [pid for pid in alive.values() if running(pid)]
    if left:
        return f"rank {rank} killed after {delay:.1f} s: processes {left} still run"
    return f"rank {rank} {'ended before' if ended else 'killed'} after {delay:.1f} s: exit {code}"


def running(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def result(run: Path) -> str:
    """One hash over everything that the run learned, and over its metrics."""
    return weights(run, ["student"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=20, help="kills of each rank")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--longest", type=float, default=14.0, help="seconds until a kill")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    moments = random.Random(given.seed)
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        recipe = write_recipe(Path(folder), given.steps, log_every=20, checkpoint_every=20)
        alone, killed = Path(folder) / "alone", Path(folder) / "killed"
        assert start(recipe, alone).wait() == 0
        for number in range(given.times * RANKS):
            delay = moments.uniform(0, given.longest)
            line = kill_one(recipe, killed, number % RANKS, delay)
            failed |= "still run" in line
            print(f"{number + 1}: {line}", flush=True)
            if "ended before" in line:  # nothing is left to disturb: begin another run
                failed |= result(killed) != result(alone)
                killed = Path(folder) / f"killed-{number}"
        assert start(recipe, killed).wait() == 0
        same = result(killed) == result(alone)
        print("final weights are", "equal" if same else "NOT equal")
    sys.exit(failed or not same)


if __name__ == "__main__":
    main()
