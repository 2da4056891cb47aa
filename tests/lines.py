"""A progress that keeps its messages, for tests of what is reported."""

from __future__ import annotations

from openeupe.progress import SilentProgress


class Lines(SilentProgress):
    """Messages in `lines`; steps are dropped."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def message(self, line: str) -> None:
        self.lines.append(line)

    @property
    def text(self) -> str:
        return "\n".join(self.lines)
