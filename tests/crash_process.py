"""A command in a child process, which is watched until a moment to disturb it."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from openeupe import cli


@dataclass
class Ended:
    """A command that ended.

    code: exit code (negative: the signal). seconds: of processors, its children's with it.
    """

    code: int
    said: str
    seconds: float


class Command:
    """A command in a forked child that leads a process group of its own."""

    def __init__(self, words: list[str], log: Path) -> None:
        self.log = log
        self.pid = os.fork()
        if self.pid:
            with suppress(OSError):
                os.setpgid(self.pid, self.pid)
            return
        code = 1
        try:
            os.setpgid(0, 0)
            out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(out, 1)
            os.dup2(out, 2)
            torch.set_num_threads(1)
            sys.argv = ["openeupe", *words]
            try:
                cli.main()
                code = 0
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            with suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            import multiprocessing.util
            import threading

            # As Python ends: pools of processes first, then what they talk through.
            threading._shutdown()  # type: ignore[attr-defined]
            multiprocessing.util._exit_function()  # type: ignore[attr-defined]
            os._exit(code)

    def wait(self) -> Ended:
        """Until it has ended, and every process that it started."""
        _, status, used = os.wait4(self.pid, 0)
        code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        end = time.monotonic() + 30
        while (left := group(self.pid)) and time.monotonic() < end:
            time.sleep(0.1)
        said = self.log.read_text(errors="replace")
        if left:
            os.killpg(self.pid, signal.SIGKILL)
            said += f"\nTraceback (not really): processes {left} are left"
        return Ended(code, said, used.ru_utime + used.ru_stime)

    def reach(self, seconds: float) -> None:
        """Wait until it has used that much of processors, or has ended: whatever else runs."""
        while seconds_used(self.pid) < seconds and not self._ended():
            time.sleep(0.002)

    def _ended(self) -> bool:
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def group(leader: int) -> list[int]:
    """Living processes of a process group."""
    return [pid for pid, fields in _members(leader).items() if fields[0] != "Z"]


def seconds_used(leader: int) -> float:
    """Of processors, by a process group and the children that it has waited for."""
    clock = os.sysconf("SC_CLK_TCK")
    return sum(sum(map(int, fields[11:15])) for fields in _members(leader).values()) / clock


def _members(leader: int) -> dict[int, list[str]]:
    """The fields of /proc/PID/stat after the name, of each process of a group."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = stat.read_text().rsplit(")", 1)[1].split()
            if int(fields[2]) == leader:
                found[int(stat.parent.name)] = fields
    return found
