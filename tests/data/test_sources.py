from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from openeupe.data.config import SourceConfig
from openeupe.data.folders import FolderSource
from openeupe.data.huggingface import HuggingFaceSource
from openeupe.data.shards import ShardSource
from openeupe.data.sources import open_source
from openeupe.errors import InputError

from .conftest import Maker, picture


def test_auto_looks(tmp_path: Path, make_folder: Maker) -> None:
    folder = make_folder(2)
    assert isinstance(open_source(SourceConfig(path=str(folder))), FolderSource)
    (tmp_path / "tars").mkdir()
    with tarfile.open(tmp_path / "tars" / "0.tar", "w") as archive:
        archive.add(folder / "0000.png", "0.png")
    for path in ("tars", "tars/0.tar", "tars/{0..0}.tar", "tars/*.tar"):
        assert isinstance(open_source(SourceConfig(path=str(tmp_path / path))), ShardSource)


def test_auto_knows_saved_datasets(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_dict({"image": [picture(0)]}).cast_column(
        "image", datasets.Image()
    ).save_to_disk(str(tmp_path / "set"))
    assert isinstance(open_source(SourceConfig(path=str(tmp_path / "set"))), HuggingFaceSource)


def test_kind_is_obeyed(make_folder: Maker) -> None:
    path = str(make_folder(1))
    with pytest.raises(InputError, match=r"no \.tar files"):
        open_source(SourceConfig(path=path, kind="shards"))
    with pytest.raises(InputError, match="not a dataset"):
        open_source(SourceConfig(path=path, kind="huggingface"))


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    for path, message in (("nowhere", "does not exist"), ("notes.txt", "is a file: name a folder")):
        with pytest.raises(InputError, match=message) as caught:
            open_source(SourceConfig(path=str(tmp_path / path)))
        assert "\n" not in str(caught.value)
