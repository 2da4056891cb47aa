"""Progress reports of library functions: to a callback or to `logging`."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, TypeVar

_LOGGER = logging.getLogger("openeupe")
Item = TypeVar("Item")


class Task(Protocol):
    """One piece of work with a known number of steps."""

    def advance(self, count: int = 1) -> None:
        """Report that `count` more steps are done."""
        ...

    def report(self, values: Mapping[str, object]) -> None:
        """Report measured values up to this step, such as losses by name."""
        ...


class Progress(Protocol):
    """Callback interface to follow a long function."""

    def message(self, line: str) -> None:
        """Report one line, such as a result or a decision."""
        ...

    def task(self, title: str, total: int, done: int = 0) -> AbstractContextManager[Task]:
        """Begin a task of `total` steps. `done` of them were done before."""
        ...


def tracked(items: Iterable[Item], progress: Progress, title: str, total: int) -> Iterator[Item]:
    """Yield items, and report each as a step of one task. It is reported once the next is asked
    for.
    """
    with progress.task(title, total) as task:
        for item in items:
            yield item
            task.advance()


class SilentProgress:
    """Progress that is not reported, as in all processes but the first."""

    def message(self, line: str) -> None:
        """Drop the line."""

    @contextmanager
    def task(self, title: str, total: int, done: int = 0) -> Iterator[Task]:
        """Drop what the task reports."""
        yield _SilentTask()


class LoggedProgress:
    """Messages and measured values at level INFO of the logger `openeupe`: the default."""

    def message(self, line: str) -> None:
        """Log the line."""
        _LOGGER.info("%s", line)

    @contextmanager
    def task(self, title: str, total: int, done: int = 0) -> Iterator[Task]:
        """Log what the task reports, but not each of its steps."""
        yield _LoggedTask(title, total, done)


class _SilentTask:
    def advance(self, count: int = 1) -> None:
        pass

    def report(self, values: Mapping[str, object]) -> None:
        pass


class _LoggedTask:
    def __init__(self, title: str, total: int, done: int) -> None:
        self.title, self.total, self.done = title, total, done

    def advance(self, count: int = 1) -> None:
        self.done += count

    def report(self, values: Mapping[str, object]) -> None:
        shown = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        _LOGGER.info("%s %d/%d: %s", self.title, self.done, self.total, shown)


SILENT: Progress = SilentProgress()
LOGGED: Progress = LoggedProgress()
