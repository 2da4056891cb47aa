"""The documented lines of export and latency are typed."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from openeupe.cli import app
from tests.conftest import Quickstart

from .pages import commands, typed


@pytest.mark.parametrize("line", commands("export"))
def test_exports_run(line: str, quickstart: Quickstart, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(quickstart.folder.parent.parent)
    result = CliRunner().invoke(app, [*shlex.split(line)[1:], "--resolution", "64"])
    # A student of two steps may rightly be refused in int8; a trained one is not.
    refused = "--precision int8" in line and "parity failed" in result.output
    assert result.exit_code == (1 if refused else 0), result.output
    assert ("failed" if refused else "passed") in result.output


@pytest.mark.parametrize("line", commands("latency"))
def test_latencies_are_measured(
    line: str, quickstart: Quickstart, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of what `test_exports_run` has written."""
    monkeypatch.chdir(quickstart.folder.parent.parent)
    if not Path(line.split()[2]).exists():
        pytest.skip("the export was not run in this process")
    assert "openvino int8" in typed(line, "--threads", "1")
