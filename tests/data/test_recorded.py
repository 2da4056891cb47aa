"""Any change of a source's images shows in what is recorded of them."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from openeupe.data import (
    FolderSource,
    HuggingFaceSource,
    ManifestSource,
    ShardSource,
    Source,
    changed,
    image_sets,
    recorded,
)

from .conftest import Maker, picture
from .test_manifest import write_manifest


def flip(file: Path, at: int) -> None:
    """Change one byte, and no size."""
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)


def test_a_folder_is_known_by_names_sizes_and_contents(make_folder: Maker, tmp_path: Path) -> None:
    folder = make_folder(4)
    before = image_sets([FolderSource(folder)])
    assert changed(before, image_sets([FolderSource(folder)])) is None
    folder.rename(tmp_path / "moved")
    moved = tmp_path / "moved"
    assert changed(before, image_sets([FolderSource(moved)])) is None
    files = sorted(moved.iterdir())
    flip(files[1], -1)
    assert changed(before, image_sets([FolderSource(moved)])) == (
        "data.sources.0: contents of images have changed"
    )
    flip(files[1], -1)
    files[1].rename(moved / "0001b.png")
    assert "names and sizes" in str(changed(before, image_sets([FolderSource(moved)])))
    files[0].unlink()
    told = changed(before, image_sets([FolderSource(moved)]))
    assert told == "data.sources.0: 4 images then, 3 now"


def test_an_image_that_is_missing_is_recorded_as_such(make_folder: Maker) -> None:
    """A run goes on without some unreadable images, so that recording them must not stop it."""
    folder = make_folder(3)
    (folder / "gone.png").symlink_to("nowhere.png")
    before = image_sets([FolderSource(folder)])
    assert before[0]["images"] == 4
    (folder / "nowhere.png").write_bytes((folder / "0000.png").read_bytes())
    (folder / "nowhere.png").rename(folder / "nowhere.txt")
    (folder / "gone.png").unlink()
    (folder / "gone.png").symlink_to("nowhere.txt")
    assert changed(before, image_sets([FolderSource(folder)]))


def test_of_a_large_set_all_names_and_sizes_and_some_contents_are_compared(
    make_folder: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorded, "_READ", 2)
    folder = make_folder(4)
    before = image_sets([FolderSource(folder)])
    files = sorted(folder.iterdir())
    flip(files[1], -1)  # not read: 0 and 2 are
    assert changed(before, image_sets([FolderSource(folder)])) is None
    files[1].write_bytes(files[1].read_bytes() + b"0")
    assert "names and sizes" in str(changed(before, image_sets([FolderSource(folder)])))


def test_shards_and_manifests_and_datasets_are_known_too(
    make_folder: Maker, tmp_path: Path
) -> None:
    folder = make_folder(3)
    files = sorted(folder.iterdir())
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for file in files:
            archive.add(file, file.name)
    rows = [
        {"source": 0, "path": f.name, "offset": None, "size_bytes": f.stat().st_size, "weight": 1.0}
        for f in files
    ]
    manifest = write_manifest(tmp_path / "kept.parquet", rows, ["images"])

    def opened() -> list[Source]:
        return [ShardSource(tmp_path / "a.tar"), ManifestSource(manifest)]

    for source in opened():
        assert source.encoded(1) == files[1].read_bytes()
    before, again = image_sets(opened()), opened()
    assert changed(before, image_sets(again)) is None
    first = ShardSource(tmp_path / "a.tar").place(0)[1]
    flip(tmp_path / "a.tar", first + 60)
    assert "sources.0: contents" in str(changed(before, image_sets(opened())))
    flip(tmp_path / "a.tar", first + 60)
    files[2].unlink()
    assert "sources.1: names and sizes" in str(changed(before, image_sets(again)))


def test_a_hugging_face_dataset_is_known_too(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")

    def saved(name: str, *numbers: int) -> HuggingFaceSource:
        rows = datasets.Dataset.from_dict(
            {"image": [picture(n) for n in numbers]},
            features=datasets.Features({"image": datasets.Image()}),
        )
        rows.save_to_disk(str(tmp_path / name))
        return HuggingFaceSource(tmp_path / name)

    before = image_sets([saved("one", 0, 1)])
    (tmp_path / "one" / "cache-1.arrow").write_text("left by the datasets library")
    assert changed(before, image_sets([HuggingFaceSource(tmp_path / "one")])) is None
    assert changed(before, image_sets([saved("same", 0, 1)])) is None
    assert changed(before, image_sets([saved("other", 0, 2)]))
