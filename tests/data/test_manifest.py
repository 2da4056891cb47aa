from __future__ import annotations

import json
import os
import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from openeupe.data import (
    Batches,
    DataConfig,
    ManifestSource,
    SourceConfig,
    Weights,
    open_source,
    open_sources,
)
from openeupe.data.decode import BrokenImage
from openeupe.errors import InputError

from .conftest import Maker, picture

VERSION = 1


def write_manifest(file: Path, rows: list[dict[str, Any]], roots: list[str], **about: Any) -> Path:
    """A manifest of the columns that training reads."""
    schema = pa.schema(
        [
            ("source", pa.int16()),
            ("path", pa.string()),
            ("offset", pa.int64()),
            ("size_bytes", pa.int64()),
            ("weight", pa.float32()),
        ],
        metadata={"openeupe": json.dumps({"version": VERSION, "roots": roots, **about})},
    )
    pq.write_table(pa.Table.from_pylist(rows, schema), file)
    return file


@pytest.fixture
def manifest(make_folder: Maker, tmp_path: Path) -> Path:
    """Four images of weights 2, 0 (dropped), 1, 1."""
    files = sorted(make_folder(4).iterdir())
    rows = [
        {"source": 0, "path": f.name, "offset": None, "size_bytes": f.stat().st_size, "weight": w}
        for f, w in zip(files, (2.0, 0.0, 1.0, 1.0), strict=True)
    ]
    return write_manifest(tmp_path / "kept.parquet", rows, ["images"])


def test_kept_rows_are_a_source(manifest: Path) -> None:
    source = open_source(SourceConfig(path=str(manifest)))
    assert isinstance(source, ManifestSource)
    assert [Path(source.name(i)).name for i in range(len(source))] == [
        "0000.png",
        "0002.png",
        "0003.png",
    ]
    assert source.read(1).size == (48, 40)
    assert pickle.loads(pickle.dumps(source)).read(2).size == (48, 40)


def test_a_manifest_must_not_hold_what_its_folder_holds_out(manifest: Path) -> None:
    folder = SourceConfig(path=str(manifest.parent / "images"), heldout=0.5)
    with pytest.raises(InputError, match=r"kept\.parquet holds .*png, which heldout of"):
        open_sources([folder, SourceConfig(path=str(manifest))])


def test_images_are_drawn_by_weight(manifest: Path) -> None:
    """Twice as often for weight 2 as for weight 1, whatever batches they come in."""
    config = DataConfig(sources=[SourceConfig(path=str(manifest))])
    batches = Batches(config, 4, 16, 0, 0, 300)
    drawn = Counter(i for step in range(300) for i in batches._dataset._indices(step, 0)[0])
    assert sum(drawn.values()) == 1200
    assert [drawn[i] / 300 for i in range(3)] == pytest.approx([2, 1, 1], abs=0.1)
    assert len(next(iter(batches)).images) == 4


def test_systematic_draws_keep_to_the_weights() -> None:
    generator = np.random.default_rng(0)
    weights = generator.exponential(size=1000)
    draw = Weights(weights)
    expected = weights / weights.mean()
    counts = np.zeros(1000)
    for start in generator.random(200):
        indices, visits = draw(generator.permutation(1000), start)
        once = np.bincount(indices, minlength=1000)
        assert (np.abs(once - expected) < 1 + 1e-9).all()
        assert (visits < once[indices]).all()
        assert len(set(zip(indices.tolist(), visits.tolist(), strict=True))) == 1000
        counts += once
    assert np.abs(counts / 200 - expected).max() < 0.2


def test_mistakes_are_one_line(manifest: Path, tmp_path: Path) -> None:
    for path, message in [
        (tmp_path / "none.parquet", "does not exist"),
        (write_manifest(tmp_path / "old.parquet", [], [], version=0), "is of version 0"),
        (write_manifest(tmp_path / "empty.parquet", [], []), "has no images"),
    ]:
        with pytest.raises(InputError, match=message):
            open_source(SourceConfig(path=str(path)))
    other = tmp_path / "other.parquet"
    pq.write_table(pa.table({"a": [1]}), other)
    with pytest.raises(InputError, match="is not a manifest"):
        open_source(SourceConfig(path=str(other)))
    other.write_bytes(b"nothing")
    with pytest.raises(InputError, match="is not a manifest"):
        open_source(SourceConfig(path=str(other)))


def test_images_that_moved_are_told(manifest: Path, tmp_path: Path) -> None:
    changed = tmp_path / "images" / "0002.png"
    changed.write_bytes(changed.read_bytes() + b"0")
    with pytest.raises(InputError, match=r"0002\.png has another size"):
        ManifestSource(manifest)
    (tmp_path / "images").rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"0000\.png is not there"):
        ManifestSource(manifest)


def test_an_image_that_changed_since_it_was_curated_is_not_trained_on(
    manifest: Path, tmp_path: Path
) -> None:
    """It was never compared with evaluation images."""
    source = ManifestSource(manifest)
    file = tmp_path / "images" / "0002.png"
    picture(9, 20, 20).save(file)
    with pytest.raises(BrokenImage, match=r"0002\.png: it has another size than when it was cur"):
        source.read(1)
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(BrokenImage, match=r"0002\.png: it is not a file"):
        source.read(1)


@pytest.mark.parametrize("weight", [float("inf"), float("nan"), 1e38, 1001.0])
def test_absurd_weights_are_refused(weight: float, make_folder: Maker, tmp_path: Path) -> None:
    """One of them would make a whole epoch one image."""
    files = sorted(make_folder(3).iterdir())
    rows = [
        {"source": 0, "path": f.name, "offset": None, "size_bytes": f.stat().st_size, "weight": w}
        for f, w in zip(files, (1.0, weight, 1.0), strict=True)
    ]
    file = write_manifest(tmp_path / "kept.parquet", rows, ["images"])
    with pytest.raises(InputError, match=r"0001\.png.*weight.*1000"):
        ManifestSource(file)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": 5}, "source"),
        ({"source": -1}, "source"),
        ({"source": None}, "source"),
        ({"path": None}, "path"),
        ({"path": "a\0.png"}, "path"),
        ({"size_bytes": None}, "size_bytes"),
        ({"size_bytes": -7}, "size_bytes"),
        ({"size_bytes": 2**40}, "size_bytes"),
        ({"offset": -7}, "offset"),
        ({"weight": None}, "weight"),
    ],
)
def test_rows_that_make_no_sense_are_refused(
    change: dict[str, Any], message: str, make_folder: Maker, tmp_path: Path
) -> None:
    files = sorted(make_folder(2).iterdir())
    rows = [
        {"source": 0, "path": f.name, "offset": None, "size_bytes": f.stat().st_size, "weight": 1.0}
        for f in files
    ]
    file = write_manifest(tmp_path / "kept.parquet", [rows[0], rows[1] | change], ["images"])
    with pytest.raises(InputError, match=f"kept.parquet.*row 1.*{message}"):
        ManifestSource(file)


def test_dropped_rows_may_be_of_files_that_cannot_be_read(
    make_folder: Maker, tmp_path: Path
) -> None:
    file, _ = sorted(make_folder(2).iterdir())
    row = {"source": 0, "path": file.name, "offset": None, "size_bytes": file.stat().st_size}
    rows = [row | {"weight": 1.0}, row | {"size_bytes": -1, "weight": 0.0}]
    assert len(ManifestSource(write_manifest(tmp_path / "kept.parquet", rows, ["images"]))) == 1


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"roots": None}, "roots"),
        ({"roots": "images"}, "roots"),
        ({"roots": [3]}, "roots"),
        ({"roots": ["images\0"]}, "roots"),
        ({"version": None}, "version"),
        ({"version": "1"}, "version"),
    ],
)
def test_metadata_that_make_no_sense_are_refused(
    about: dict[str, Any], message: str, manifest: Path
) -> None:
    table = pq.read_table(manifest)
    told = {"version": VERSION, "roots": ["images"], **about}
    pq.write_table(table.replace_schema_metadata({"openeupe": json.dumps(told)}), manifest)
    with pytest.raises(InputError, match=f"kept.parquet.*{message}"):
        ManifestSource(manifest)


def test_columns_of_another_type_are_refused(manifest: Path) -> None:
    table = pq.read_table(manifest)
    for column in ("source", "path", "offset", "size_bytes", "weight"):
        changed = table.set_column(
            table.schema.get_field_index(column), column, pa.array([[1]] * len(table))
        )
        pq.write_table(changed, manifest)
        with pytest.raises(InputError, match=r"kept\.parquet"):
            ManifestSource(manifest)
        pq.write_table(table.drop_columns([column]), manifest)
        with pytest.raises(InputError, match=r"kept\.parquet"):
            ManifestSource(manifest)
