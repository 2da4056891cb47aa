"""What the commands draw of a library function's progress."""

from __future__ import annotations

import io

from rich.console import Console

from openeupe.cli.drawn_progress import DrawnProgress

VALUES = {
    "step": 3,
    "images_per_s": 12.34,
    "waiting": 0.2,
    "loss/vit/cls": 0.5,
    "loss/vit/patches": 0.25,
    "lr": 1e-3,
}


def drawn(*, terminal: bool) -> str:
    """A stage of four steps that reports once, with another task inside it."""
    file = io.StringIO()
    progress = DrawnProgress(Console(file=file, force_terminal=terminal, width=200))
    progress.message("a [line] with [/marks]")
    with progress.task("[/stage]", 4, done=2) as stage:
        stage.advance()
        with progress.task("inner", 2) as inner:
            inner.advance(2)
        stage.report(VALUES)
    with progress.task("looks", 1) as looks:
        looks.advance()
    return file.getvalue()


def test_reports_are_plain_lines_where_there_is_no_terminal() -> None:
    message, stage = drawn(terminal=False).splitlines()
    assert message == "a [line] with [/marks]"
    assert stage == (
        "[/stage] 3/4  12.3 images/s (20% waiting for images)  0 s left  "
        "vit/cls 0.500  vit/patches 0.250"
    )


def test_a_bar_on_a_terminal_stays_if_its_task_reported_values() -> None:
    text = drawn(terminal=True)
    assert "inner" in text
    assert "looks" in text
    last = [line for line in text.splitlines() if "/stage" in line][-1]
    assert "3/4" in last
    assert "12.3 images/s" in last
    assert "vit/patches 0.250" in last
    assert text.index("looks") > text.rindex("/stage")
