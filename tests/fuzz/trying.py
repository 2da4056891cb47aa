"""One malformed input: how it ended, how long it took and how much memory it needed."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import tempfile
import time
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
import typer.main

from .good import Good, run
from .kinds import KINDS

LIMIT_S = 20  # for one input, on a busy machine
LIMIT_GB = 2.0
_PLAIN_GB = 0.8  # of a process that has imported what the commands need, and no more
OUTCOMES = ("ok", "refused", "traceback", "lines", "slow", "memory")
WRONG = OUTCOMES[2:]


class Late(BaseException):
    """Not an `Exception`: readers that catch these must not catch it."""


@dataclass(frozen=True)
class Tried:
    """kind, seed: what makes the same input again. outcome: one of `OUTCOMES`."""

    kind: str
    seed: int
    outcome: str
    seconds: float
    gigabytes: float
    told: str = ""


@cache
def good() -> Good:
    """The good files of this process; they go with it."""
    holder = tempfile.TemporaryDirectory(prefix="openeupe-fuzz-")
    made = Good(Path(holder.name))
    made.holder = holder  # type: ignore[attr-defined]
    return made


def prepare() -> None:
    """For a process that does nothing else: one thread, and commands that are made once."""
    torch.set_num_threads(1)
    typer.main.get_command = cache(typer.main.get_command)  # it takes 40 ms of each input


def attempt_one(job: tuple[str, int]) -> Tried:
    """`attempt` of a kind and a seed."""
    return attempt(*job)


def attempt(kind: str, seed: int) -> Tried:
    """Give one malformed input to the command that reads it."""
    files = good()
    rng = random.Random(f"{kind} {seed}")
    outcome, told = "ok", ""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        command = KINDS[kind](rng, folder, files)
        before = signal.signal(signal.SIGALRM, _late)
        here = os.getcwd()
        (inner := folder / "here").mkdir()  # so that ".." is ours, too
        os.chdir(inner)
        _forget_peak()
        held = _peak_gb()  # much, where other tests ran before in this process
        started = time.perf_counter()
        signal.alarm(LIMIT_S)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                code, told = run(*command)
            outcome = _outcome(code, told)
        except Late:
            outcome = "slow"
        except BaseException as error:
            outcome, told = "traceback", repr(error)
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)
            os.chdir(here)
        seconds, peak = time.perf_counter() - started, _peak_gb()
    if peak > LIMIT_GB + max(0.0, held - _PLAIN_GB):
        outcome = "memory"
    if outcome in WRONG:
        told = f"openeupe {' '.join(map(str, command))}\n{told[-1500:]}"
    return Tried(kind, seed, outcome, seconds, peak, told)


def _outcome(code: int, told: str) -> str:
    if code == 0:
        return "ok"
    if code != 2 or "Traceback" in told:
        return "traceback"
    lines = [line for line in told.splitlines() if line.startswith("error: ")]
    usage = told.lstrip().startswith("Usage:")
    return (
        "refused" if usage or (lines and told.rstrip().splitlines()[-1] == lines[-1]) else "lines"
    )


def _late(*_: Any) -> None:
    raise Late


def _forget_peak() -> None:
    with contextlib.suppress(OSError):  # another system: the peak is then of the whole process
        Path("/proc/self/clear_refs").write_text("5")


def _peak_gb() -> float:
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0.0
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1e6
