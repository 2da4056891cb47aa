from __future__ import annotations

from pathlib import Path

import pytest

from ..tiny_recipe import write_images


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a folder with `photos`."""
    write_images(tmp_path / "photos", 12)
    monkeypatch.chdir(tmp_path)
    return tmp_path
