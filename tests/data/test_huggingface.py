from __future__ import annotations

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest

from openeupe.data.decode import BrokenImage
from openeupe.data.huggingface import HuggingFaceSource
from openeupe.errors import InputError

from .conftest import picture

datasets = pytest.importorskip("datasets")


def _save(path: Path) -> Path:
    rows = datasets.Dataset.from_dict(
        {"photo": [picture(0), picture(1), None], "label": [4, 5, 6]},
        features=datasets.Features({"photo": datasets.Image(), "label": datasets.Value("int64")}),
    )
    rows.save_to_disk(str(path))
    return path


def test_round_trip(tmp_path: Path) -> None:
    source = HuggingFaceSource(_save(tmp_path / "set"), "photo")
    assert len(source) == 3
    for copy in (source, pickle.loads(pickle.dumps(source))):
        assert np.array_equal(np.asarray(copy.read(1)), np.asarray(picture(1)))
    with pytest.raises(BrokenImage, match="set, row 2"):
        source.read(2)


def test_mistakes_are_said(tmp_path: Path) -> None:
    path = _save(tmp_path / "set")
    for column, message in (
        ("image", "no column image: set column to one of photo, label"),
        ("label", "column label .* does not hold images"),
    ):
        with pytest.raises(InputError, match=message):
            HuggingFaceSource(path, column)
    with pytest.raises(InputError, match="not a folder"):
        HuggingFaceSource(tmp_path / "nowhere")
    (tmp_path / "other").mkdir()
    with pytest.raises(InputError, match="not a dataset written by save_to_disk"):
        HuggingFaceSource(tmp_path / "other")
    splits = datasets.DatasetDict({"train": datasets.load_from_disk(str(path))})
    splits.save_to_disk(str(tmp_path / "splits"))
    with pytest.raises(InputError, match=r"several splits: name one of .*splits/train"):
        HuggingFaceSource(tmp_path / "splits")
    empty = datasets.load_from_disk(str(path)).select([])
    empty.save_to_disk(str(tmp_path / "none"))
    with pytest.raises(InputError, match="has no rows"):
        HuggingFaceSource(tmp_path / "none", "photo")


def test_missing_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r"pip install 'openeupe\[hf\]'"):
        HuggingFaceSource(tmp_path)
