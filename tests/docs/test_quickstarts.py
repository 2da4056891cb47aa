"""The documented lines of quickstart are typed."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import QUICK, QUICK_SUITE

from .pages import commands, typed


@pytest.mark.parametrize(  # the fixture runs it without options
    "line", [line for line in commands("quickstart") if line != "openeupe quickstart"]
)
def test_quickstarts_run(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openeupe.report.seen._LARGEST_RESOLUTION", 64)
    few = {"benchmarks": {"fidelity": {"train_crops": 12, "test_crops": 4}}}
    monkeypatch.setattr("openeupe.api.quickstart._SUITE", QUICK_SUITE | few)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FOLDER").mkdir()
    for i in range(24):
        Image.radial_gradient("L").rotate(15 * i).save(tmp_path / "FOLDER" / f"{i}.png")
    assert "Next:" in typed(line, *QUICK)
