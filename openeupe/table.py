"""Text tables of results, for printing and Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Table:
    """A table with header, rows, title and notes.

    Example:
        >>> print(Table(["stage", "hours"], [["proxy", "12"], ["student", "3"]]))
        stage    hours
        proxy       12
        student      3

    Attributes:
        header: names of the columns; a newline is where a narrow column may break.
        rows: the cells.
        title: what the table shows; may be empty.
        notes: sentences that belong below it.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    notes: Sequence[str] = field(default_factory=list)

    def markdown(self) -> str:
        """The table in Markdown, without title and notes."""
        lines = self._lines()
        lines.insert(1, ["---"] * len(self.header))
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)

    def __str__(self) -> str:
        """The table as text. The first column is aligned left, the others right."""
        lines = self._lines()
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = [self.title] if self.title else []
        for line in lines:
            cells = zip(line, widths, strict=True)
            first, *others = (c.rjust(w) if i else c.ljust(w) for i, (c, w) in enumerate(cells))
            text.append("  ".join([first, *others]).rstrip())
        return "\n".join([*text, *self.notes])

    def _lines(self) -> list[list[str]]:
        return [[_one_line(cell) for cell in line] for line in (self.header, *self.rows)]


def _one_line(cell: str) -> str:
    return cell.replace("-\n", "-").replace("\n", " ")
