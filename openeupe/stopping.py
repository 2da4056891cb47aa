"""Stop on signals, and together with the parent process."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

_POLL_S = 1.0


class Stopped(BaseException):
    """SIGTERM or SIGINT stopped this process; finished work is on the disk.

    Attributes:
        signum: the signal.
        where: position of the work, such as the step; may be empty.
    """

    def __init__(self, signum: int, where: str = "") -> None:
        super().__init__(signum, where)
        self.signum = signum
        self.where = where


class StopRequest:
    """The signal that was received, if any."""

    signum: int | None = None

    def note(self, signum: int, _: FrameType | None) -> None:
        """Remember the first signal; a second Ctrl-C stops at once."""
        if self.signum is not None and signum == signal.SIGINT:
            raise Stopped(signum)
        self.signum = self.signum or signum


@contextmanager
def stop_requested() -> Iterator[StopRequest]:
    """Note SIGTERM and SIGINT instead of ending. The caller can save its work first.

    In other threads than the main one nothing is noted: Python calls no handlers there. A signal
    that is ignored stays so.

    Raises:
        Stopped: at the end, if a signal was noted and the caller did not see it.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)}
    before = {s: handler for s, handler in before.items() if handler != signal.SIG_IGN}
    for signum in before:
        signal.signal(signum, request.note)
    try:
        yield request
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler if handler is not None else signal.SIG_DFL)
    if request.signum is not None:
        raise Stopped(request.signum)


_asked: list[int] = []  # the signal by which the program was asked to stop at once


def stop_at_once() -> None:
    """Let SIGTERM and SIGINT raise `Stopped`, unless they are ignored.

    For a whole program: partial files are removed on the way out.
    """
    _asked.clear()
    for signum in (signal.SIGTERM, signal.SIGINT):
        if signal.getsignal(signum) != signal.SIG_IGN:  # as `nohup` and background jobs have it
            signal.signal(signum, _stop)


def _stop(signum: int, _: FrameType | None) -> NoReturn:
    _asked[:] = [signum]
    raise Stopped(signum)


def stopped_by(error: BaseException) -> Stopped | None:
    """Return the `Stopped` behind an error, if there is one.

    A library that is being imported may replace `Stopped` by an error of its own.
    """
    if isinstance(error, Stopped):
        return error
    return Stopped(_asked[0]) if _asked else None


def end_with_parent() -> None:
    """End this process when its parent has ended, even by SIGKILL.

    Call it in processes that torchrun or `multiprocessing` starts. They would work on otherwise,
    and keep the device.
    """
    threading.Thread(target=_watch_parent, name="end-with-parent", daemon=True).start()


def _watch_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    elif os.name == "nt":  # where a parent's end cannot be seen
        return
    else:
        first = os.getppid()
        while os.getppid() == first:
            time.sleep(_POLL_S)
    os._exit(1)
