"""Loader processes: the same items as without; killed or stopped ones become one clear error."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset

from openeupe.data import workers
from openeupe.data.workers import loaded
from openeupe.errors import InputError

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGCHLD"), reason="needs POSIX signals")


class Pids(Dataset[Any]):
    """Each item tells which process made it."""

    def __getitem__(self, number: int) -> tuple[int, int]:
        return number, os.getpid()


def test_items_come_in_order_with_and_without_processes() -> None:
    order = [3, 1, 2, 0]
    assert [n for n, _ in loaded(Pids(), order, 0)] == order
    found = list(loaded(Pids(), order, 2))
    assert [n for n, _ in found] == order
    assert os.getpid() not in {pid for _, pid in found}


def test_a_killed_process_is_told_as_such_and_only_where_items_are_waited_for() -> None:
    items = loaded(Pids(), range(1000), 1)
    _, pid = next(items)
    os.kill(pid, signal.SIGKILL)
    end = time.monotonic() + 0.5
    while time.monotonic() < end:  # a RuntimeError would come from any line here
        torch.zeros(1).add(1)
    with pytest.raises(InputError, match=r"loader process was killed.*memory.*data\.workers"):
        list(items)


def test_a_stopped_process_is_told_and_does_not_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "PATIENCE_S", 0.5)
    monkeypatch.setattr(workers, "_LOOK_S", 1)
    items = loaded(Pids(), range(1000), 1)
    _, pid = next(items)
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(InputError, match=r"stuck or stopped.*run the same command again"):
        list(items)
    for _ in range(100):  # it is gone, too
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            break
        time.sleep(0.1)
    else:
        raise AssertionError("the stopped process is still there")


def test_a_slow_process_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_LOOK_S", 1)

    class Slow(Dataset[int]):
        def __getitem__(self, number: int) -> int:
            time.sleep(2.5)
            return number

    assert list(loaded(Slow(), [7], 1)) == [7]


ORPHANS = """
import time
from tests.data.test_workers import Pids
from openeupe.data.workers import loaded
items = loaded(Pids(), range(10**6), 2)
print(*{next(items)[1] for _ in range(6)}, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_processes_leave_signals_to_their_parent_and_die_with_it(method: str) -> None:
    """Of `ablate --jobs 2` they are started by a fork server."""
    program = f"import multiprocessing as m; m.set_start_method({method!r})\n{ORPHANS}"
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGINT)
    time.sleep(0.5)
    assert all(alive(pid) for pid in pids)
    parent.kill()
    parent.wait()
    end = time.monotonic() + 30
    while any(alive(pid) for pid in pids):
        assert time.monotonic() < end, "the loader processes live on"
        time.sleep(0.2)


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and was not waited for does not."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
