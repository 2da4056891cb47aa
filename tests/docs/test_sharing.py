"""The documented lines of save and push, and the Python blocks, are typed."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import MagicMock

import pytest
import torch

from tests.conftest import Quickstart
from tests.encoders.released_layout import write

from .pages import blocks, commands, typed
from .test_curating import make_photos


@pytest.fixture(scope="module")
def shared(quickstart: Quickstart) -> Path:
    """A folder with runs/quickstart, photos, a released EUPE file, and what the docs save."""
    folder = quickstart.folder.parent.parent
    make_photos(folder)
    write(folder, "eupe_vit_t")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for line in commands("save"):
            typed(line)
    return folder


@pytest.mark.parametrize("line", commands("push"))
def test_pushes_reach_the_hub(line: str, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = MagicMock()
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: hub)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "token")
    monkeypatch.chdir(shared)
    typed(line)
    hub.create_repo.assert_called_once_with("OWNER/NAME", private=True, exist_ok=True)


@pytest.mark.parametrize("block", blocks("python"))
def test_python_runs(block: str, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shared)
    exec(block, {"images": torch.rand(2, 3, 128, 128)})
