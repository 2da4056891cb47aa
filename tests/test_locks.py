"""A folder is one process's; a second is told at once whose; a killed one holds nothing."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from openeupe.errors import InputError
from openeupe.locks import locked

HOLD = """
import os, sys, time
from pathlib import Path
from openeupe.locks import locked
with locked(Path(sys.argv[1]), "the run"):
    if "fork" in sys.argv and os.fork() == 0:
        time.sleep(1)
        print("child", flush=True)
        time.sleep(30)
    print("held", flush=True)
    time.sleep(30)
"""


def holder(folder: Path, *more: str) -> subprocess.Popen[str]:
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), *more], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    while child.stdout.readline().strip() != ("child" if more else "held"):
        assert child.poll() is None
    return child


def test_the_second_process_is_told_at_once_who_holds_the_folder(tmp_path: Path) -> None:
    child = holder(tmp_path)
    try:
        started = time.monotonic()
        with pytest.raises(InputError) as error, locked(tmp_path, "the run"):
            pass
        assert time.monotonic() - started < 20  # it does not wait for the lock, which stays held
        told = f"the run {tmp_path} is in use by process {child.pid} on {platform.node()}"
        assert str(error.value).startswith(told)
        with pytest.raises(InputError, match=f"process {child.pid}"), locked(tmp_path, "the run"):
            pass  # the first attempt has not wiped out the name
    finally:
        child.kill()
        child.wait()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_killed_process_holds_nothing_even_if_its_children_live(tmp_path: Path) -> None:
    child = holder(tmp_path, "fork")
    child.send_signal(signal.SIGKILL)
    child.wait()
    with locked(tmp_path, "the run"):
        assert str(os.getpid()) in (tmp_path / ".lock").read_text()
    with locked(tmp_path, "the run"):
        pass


def test_an_unwritable_folder_is_a_mistake_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("openeupe.locks.FileLock.acquire", refused)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(InputError, match="cannot be written"), locked(tmp_path, "the run"):
        pass
