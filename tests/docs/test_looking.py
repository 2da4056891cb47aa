"""The documented lines of look, report and demo are typed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.conftest import Quickstart

from .pages import commands, typed


@pytest.mark.parametrize("line", [*commands("look"), *commands("report"), *commands("demo")])
def test_looking_runs(
    line: str, quickstart: Quickstart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On small photos; what is served by the demo is built and not launched."""
    served: list[Any] = []
    monkeypatch.setattr("openeupe.report.seen._LARGEST_RESOLUTION", 96)
    monkeypatch.setattr("openeupe.api.look.build", lambda encoders, resolution: Served(served))
    (tmp_path / "runs").symlink_to(quickstart.folder.parent)
    (tmp_path / "photos").mkdir()
    for name in ("photo.jpg", "other.jpg", "photos/one.png", "photos/two.png"):
        Image.radial_gradient("L").convert("RGB").save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    verb = line.split()[1]
    cut = {"look": ["--resolution", "96"], "report": ["--out", "page.html"], "demo": []}[verb]
    told = typed(line, *cut, "--device", "cpu")
    assert served == ["127.0.0.1"] if verb == "demo" else "wrote" in told


class Served:
    """Stands for the demo's page."""

    def __init__(self, served: list[Any]) -> None:
        self.served = served

    def launch(self, **settings: Any) -> None:
        self.served.append(settings["server_name"])
