"""Progress on a console: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from openeupe.progress import Task


class DrawnProgress:
    """What the commands pass to library functions, see `openeupe.progress.Progress`.

    A bar disappears when its task ends, unless the task reported values: then its last state stays.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bars: Bars | None = None

    def message(self, line: str) -> None:
        """Print one line."""
        self.console.print(line, soft_wrap=True, highlight=False, markup=False, emoji=False)

    @contextmanager
    def task(self, title: str, total: int, done: int = 0) -> Iterator[Task]:
        """Draw a bar. Where the console is no terminal, only what the task reports."""
        if not self.console.is_terminal:
            yield _PlainTask(self, title, total, done)
            return
        from rich.markup import escape

        outermost = self._bars is None
        bars = self._bars = self._bars or _new_bars(self.console)
        number = bars.add_task(escape(title), total=total, completed=done, rate="", losses="")
        task = _BarTask(bars, number)
        try:
            if outermost:
                bars.start()
            yield task
        finally:
            last = bars.make_tasks_table([bars.tasks[bars.task_ids.index(number)]])
            bars.remove_task(number)
            if outermost:
                bars.stop()
                self._bars = None
            if task.reported:
                self.console.print(last)


class _BarTask:
    def __init__(self, bars: Bars, number: TaskID) -> None:
        self.bars, self.number, self.reported = bars, number, False

    def advance(self, count: int = 1) -> None:
        self.bars.advance(self.number, count)

    def report(self, values: Mapping[str, Any]) -> None:
        self.reported = True
        self.bars.update(self.number, rate=_rate(values), losses=_losses(values))


class _PlainTask:
    """A line for each report, with the remaining time."""

    def __init__(self, parent: DrawnProgress, title: str, total: int, done: int) -> None:
        self.parent, self.title, self.total = parent, title, total
        self.first = self.done = done
        self.started = time.perf_counter()

    def advance(self, count: int = 1) -> None:
        self.done += count

    def report(self, values: Mapping[str, Any]) -> None:
        elapsed = time.perf_counter() - self.started
        left = elapsed / max(self.done - self.first, 1) * (self.total - self.done)
        self.parent.message(
            f"{self.title} {self.done}/{self.total}  {_rate(values)}  {left:.0f} s left  "
            f"{_losses(values)}"
        )


def _new_bars(console: Console) -> Bars:
    from rich import progress

    return progress.Progress(
        progress.TextColumn("[bold]{task.description}"),
        progress.BarColumn(bar_width=24),
        progress.MofNCompleteColumn(),
        progress.TextColumn("{task.fields[rate]}"),
        progress.TimeElapsedColumn(),
        progress.TextColumn("left"),
        progress.TimeRemainingColumn(),
        progress.TextColumn("{task.fields[losses]}"),
        console=console,
        transient=True,
    )


def _rate(values: Mapping[str, Any]) -> str:
    """Images per second, and the share of time waiting for them where it matters."""
    rate = f"{values['images_per_s']:.1f} images/s" if "images_per_s" in values else ""
    waiting = values.get("waiting", 0)
    return f"{rate} ({waiting:.0%} waiting for images)" if waiting > 0.05 else rate


def _losses(values: Mapping[str, Any]) -> str:
    """The loss per student, teacher and token kind."""
    losses = ((k.removeprefix("loss/"), v) for k, v in values.items() if k.startswith("loss/"))
    return "  ".join(f"{name} {value:.3f}" for name, value in losses)
