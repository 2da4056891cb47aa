"""Progress without a callback: to `logging`, or nowhere."""

from __future__ import annotations

import logging

import pytest

from openeupe.progress import LOGGED, SILENT, Progress


@pytest.mark.parametrize("progress", [LOGGED, SILENT])
def test_without_a_callback_messages_are_logged_or_dropped(
    progress: Progress, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO, "openeupe")
    progress.message("teachers: 100 % ready")
    with progress.task("proxy", 4, done=1) as task:
        task.advance(2)
        task.report({"loss/vit/cls": 0.51234, "step": 3})
    expected = ["teachers: 100 % ready", "proxy 3/4: loss/vit/cls 0.5123, step 3"]
    assert [record.getMessage() for record in caplog.records] == (
        expected if progress is LOGGED else []
    )
    assert capfd.readouterr() == ("", "")
