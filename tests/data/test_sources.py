from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from openeupe.data.config import SourceConfig
from openeupe.data.folders import FolderSource
from openeupe.data.huggingface import HuggingFaceSource
from openeupe.data.shards import ShardSource
from openeupe.data.sources import open_source, source_identity
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


def replaced(folder: Path) -> None:
    """Another picture under the first one's name, of as many bytes."""
    file = folder / "0000.png"
    size = file.stat().st_size
    picture(77, 40, 40).save(file)
    file.write_bytes(file.read_bytes().ljust(size, b"\0")[:size])


def test_the_identity_is_of_the_contents_wherever_they_lie(
    tmp_path: Path, make_folder: Maker
) -> None:
    folder = make_folder(3)

    def found() -> list[str]:
        tar = tmp_path / "0.tar"
        with tarfile.open(tar, "w") as archive:
            for file in sorted(folder.iterdir()):
                archive.add(file, file.name, filter=lambda info: info.replace(mtime=0, deep=False))
        return [source_identity(SourceConfig(path=str(path))) for path in (folder, tar)]

    before = found()
    folder = folder.rename(tmp_path / "moved")
    assert found() == before
    replaced(folder)
    assert all(old != new for old, new in zip(before, found(), strict=True))
    assert source_identity(SourceConfig(path=str(folder), heldout=0.3)) == found()[0]


def test_the_identity_of_a_manifest_is_also_of_its_images(
    tmp_path: Path, make_folder: Maker
) -> None:
    pytest.importorskip("pyarrow")
    from .test_manifest import write_manifest

    file = make_folder(2) / "0000.png"
    row = {"source": 0, "path": file.name, "offset": None, "size_bytes": file.stat().st_size}
    manifest = write_manifest(tmp_path / "kept.parquet", [{**row, "weight": 1.0}], ["images"])
    before = source_identity(SourceConfig(path=str(manifest)))
    assert source_identity(SourceConfig(path=str(manifest))) == before
    replaced(file.parent)
    assert source_identity(SourceConfig(path=str(manifest))) != before


def test_the_identity_of_a_saved_dataset_leaves_caches_out(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    found = []
    for number in (0, 0, 1):
        datasets.Dataset.from_dict({"image": [picture(number)]}).cast_column(
            "image", datasets.Image()
        ).save_to_disk(str(tmp_path / "set"))
        found.append(source_identity(SourceConfig(path=str(tmp_path / "set"))))
        (tmp_path / "set/cache-1.arrow").write_text(str(len(found)))
        assert source_identity(SourceConfig(path=str(tmp_path / "set"))) == found[-1]
    assert found[2] != found[0]


def test_a_column_that_nothing_reads_is_refused(make_folder: Maker) -> None:
    with pytest.raises(InputError, match="column works for Hugging Face datasets, not for folder"):
        open_source(SourceConfig(path=str(make_folder(1)), column="photo"))


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
