"""Where `openeupe export` writes without --out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from openeupe.api.export import _default_folder
from openeupe.deployment.config import ExportConfig
from openeupe.errors import InputError


def test_every_source_has_a_name_inside_exports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run" / "deep").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "run" / "deep")
    made = {
        "..": "run-onnx-fp32",
        ".": "deep-onnx-fp32",
        "../../etc/": "etc-onnx-fp32",
        "/etc": "etc-onnx-fp32",
        "hf-hub:A/B": "hf-hub_A_B-onnx-fp32",
        "runs/mine": "runs_mine-onnx-fp32",
    }
    for source, name in made.items():
        assert _default_folder(source, ExportConfig()) == Path("exports") / name


def test_the_export_of_another_encoder_of_like_name_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path("exports/runs_mine-onnx-fp32")
    folder.mkdir(parents=True)
    (folder / "export.json").write_text(json.dumps({"source": "runs/mine"}))
    assert _default_folder("runs/mine/", ExportConfig()) == folder
    with pytest.raises(InputError, match=r"holds the export of runs/mine: choose another folder"):
        _default_folder("runs_mine", ExportConfig())
