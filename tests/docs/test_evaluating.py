"""The documented lines of evaluate and compare are typed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Quickstart

from .pages import commands, typed

KNN = "kind: knn, protocol: knn/test-v1, domain: image, short: 64, crop: 64, k: [3]"


@pytest.mark.parametrize("line", [*commands("evaluate"), *commands("compare")])
def test_evaluations_run(
    line: str, quickstart: Quickstart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the suite cut to one small benchmark: tests/evaluation/test_mini.py runs the others."""
    suite = tmp_path / "suite.yaml"
    data = "{layout: scenes, count: 12}"
    suite.write_text(f"{{name: cut, benchmarks: {{knn: {{{KNN}, data: {data}}}}}}}")
    monkeypatch.chdir(quickstart.folder.parent.parent)
    more = ("--suite", str(suite), "--device", "cpu")
    assert "knn" in typed(line, *more, without=("--suite", "mini"))
