"""An image that one source holds out is found in every other source, whatever its kind."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import pytest

from openeupe.data import heldout
from openeupe.data.config import SourceConfig
from openeupe.data.folders import FolderSource
from openeupe.data.heldout import open_sources
from openeupe.errors import InputError

from .conftest import Maker, picture


@pytest.mark.parametrize("inner", ["", "sub", ".."])
def test_an_image_that_is_held_out_is_in_no_other_source(tmp_path: Path, inner: str) -> None:
    for number in range(60):
        path = tmp_path / "all" / "photos" / "sub" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(number).save(path)
    photos = tmp_path / "all" / "photos"
    first = SourceConfig(path=str(photos), heldout=0.2)
    second = SourceConfig(path=str(photos / inner))
    for configs in ([first, second], [second, first]):
        with pytest.raises(InputError, match=r"heldout of .*photos holds out from training"):
            open_sources(configs)
    assert len(open_sources([first, first])) == 2  # the same part twice holds out the same


def test_sources_that_only_lie_beside_each_other_do_not_overlap(tmp_path: Path) -> None:
    for start, folder in ((0, "photos"), (100, "photos2")):
        (tmp_path / folder).mkdir()
        for number in range(30):
            picture(start + number).save(tmp_path / folder / f"{number}.png")
    configs = [
        SourceConfig(path=str(tmp_path / "photos"), heldout=0.2),
        SourceConfig(path=str(tmp_path / "photos2")),
    ]
    assert len(open_sources(configs)) == 2


def packed(kind: str, files: list[Path], out: Path) -> Path:
    """The same images in another place, as a source of this kind."""
    if kind == "folder":
        out.mkdir()
        for number, file in enumerate(files):
            shutil.copy(file, out / f"copy{number}.png")
    elif kind == "shards":
        out = out.with_suffix(".tar")
        with tarfile.open(out, "w") as archive:
            for number, file in enumerate(files):
                archive.add(file, f"{number}.png")
    elif kind == "manifest":
        pytest.importorskip("pyarrow")
        from .test_manifest import write_manifest

        packed("folder", files, out)
        rows = [
            {"source": 0, "path": f.name, "offset": None, "size_bytes": f.stat().st_size}
            for f in sorted(out.iterdir())
        ]
        weighted = [{**row, "weight": 1.0} for row in rows]
        out = write_manifest(out.parent / "kept.parquet", weighted, [out.name])
    else:
        datasets = pytest.importorskip("datasets")
        features = datasets.Features({"image": datasets.Image()})
        rows = [{"path": None, "bytes": file.read_bytes()} for file in files]
        datasets.Dataset.from_dict({"image": rows}, features=features).save_to_disk(str(out))
    return out


@pytest.mark.parametrize("kind", ["folder", "shards", "manifest", "huggingface"])
def test_a_copy_of_an_image_that_is_held_out_is_found(
    make_folder: Maker, tmp_path: Path, kind: str
) -> None:
    photos = make_folder(30)
    first = SourceConfig(path=str(photos), heldout=0.3)
    trained, held = (
        [Path(source.name(index)) for index in range(len(source))]
        for source in (
            FolderSource(photos, heldout=0.3, part=part)  # type: ignore[arg-type]
            for part in ("train", "heldout")
        )
    )
    copy = packed(kind, trained, tmp_path / "innocent")
    assert len(open_sources([first, SourceConfig(path=str(copy))])) == 2
    copy = packed(kind, [*trained[:3], held[1]], tmp_path / "leaks")
    with pytest.raises(InputError, match=rf"the same image as .*{held[1].name}, which heldout of"):
        open_sources([SourceConfig(path=str(copy)), first])


def test_of_many_held_out_images_some_are_looked_for(
    make_folder: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heldout, "_COMPARED", 2)
    photos = make_folder(30)
    held = FolderSource(photos, heldout=0.5, part="heldout")
    files = [Path(held.name(index)) for index in range(len(held))]
    first = SourceConfig(path=str(photos), heldout=0.5)
    one = packed("shards", files[1:2], tmp_path / "one")
    assert len(open_sources([first, SourceConfig(path=str(one))])) == 2
    every = packed("shards", files, tmp_path / "all")
    with pytest.raises(InputError, match="the same image as"):
        open_sources([first, SourceConfig(path=str(every))])
