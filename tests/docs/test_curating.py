"""The documented lines of curate are typed."""

from __future__ import annotations

from pathlib import Path

import pytest

from openeupe.data import ManifestSource
from tests.curation.conftest import jpeg, photo

from .pages import commands, typed


def make_photos(folder: Path) -> None:
    """`photos`, of which one is a copy, and `test`, of which one is among them."""
    for name, numbers in (("photos", range(12)), ("test", range(11, 13))):
        (folder / name).mkdir()
        for number in numbers:
            (folder / name / f"{number}.jpg").write_bytes(jpeg(photo(number)))
    (folder / "photos" / "copy.jpg").write_bytes(jpeg(photo(3)))


@pytest.mark.parametrize("line", commands("curate"))
def test_curations_run(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_photos(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert "13 images" in typed(line, "--device", "cpu")
    assert 8 <= len(ManifestSource("curated.parquet")) <= 11  # drawn photos look alike
    assert "11.jpg shows" in Path("curated.md").read_text()
    assert Path("curated.html").is_file()
