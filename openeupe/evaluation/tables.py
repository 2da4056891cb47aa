"""A table of text: drawn by the command line, by reports and as Markdown."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """Cells of a table. rows: as long as the header each."""

    header: list[str]
    rows: list[list[str]]
    title: str = ""

    def markdown(self) -> str:
        """For a README or a paper's notes, without the title."""
        lines = [self.header, ["---"] * len(self.header), *self.rows]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)
