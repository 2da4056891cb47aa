from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from openeupe.curation import curate, scan
from openeupe.curation.image_pool import ImagePool

from .conftest import jpeg, photo


@pytest.fixture
def nested(tmp_path: Path) -> Path:
    """Two photos each in `p/a` and `p/b`."""
    for number in range(4):
        folder = tmp_path / "p" / "ab"[number // 2]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.jpg").write_bytes(jpeg(photo(number)))
    return tmp_path / "p"


def test_a_scan_under_other_roots_is_not_reused(nested: Path, tmp_path: Path) -> None:
    out, fresh = tmp_path / "out.parquet", tmp_path / "fresh.parquet"
    curate([nested / "a", nested / "b"], out, None)
    curate([nested], out, None)
    curate([nested], fresh, None)
    assert pq.read_table(out).equals(pq.read_table(fresh))


def test_an_image_replaced_at_the_same_size_and_time_is_read_again(
    nested: Path, tmp_path: Path
) -> None:
    out, file = tmp_path / "out.parquet", nested / "a" / "0.jpg"
    for number, shade in enumerate((10, 200)):
        noise = Image.effect_noise((96, 96), 90).point(lambda value, s=shade: (value + s) % 256)
        noise.convert("RGB").save(file.with_suffix(".bmp"))
        os.replace(file.with_suffix(".bmp"), file)
        os.utime(file, ns=(10**18, 10**18))
        curate([nested], out, None)
        table = pq.read_table(out, columns=["path", "digest"]).to_pylist()
        digest = next(row["digest"] for row in table if row["path"] == "a/0.jpg")
        assert digest == scan.digest(file.read_bytes()), f"run {number}"


def test_a_scan_by_another_version_of_the_hash_is_not_reused(
    nested: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.parquet"
    curate([nested], out, None)
    looked, look = [], scan._look
    monkeypatch.setattr(
        scan, "_look", lambda image_pool, row: looked.append(row) or look(image_pool, row)
    )
    curate([nested], out, None)
    assert not looked
    monkeypatch.setattr(scan, "_VERSION", 0)
    curate([nested], out, None)
    assert looked


def test_what_could_not_be_read_for_a_moment_is_read_again(
    nested: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, encoded = tmp_path / "out.parquet", ImagePool.encoded

    def failing(image_pool: ImagePool, row: int) -> bytes:
        if row == 1:
            raise OSError("the network is away")
        return encoded(image_pool, row)

    monkeypatch.setattr(ImagePool, "encoded", failing)
    assert curate([nested], out, None)["dropped"] == {"unreadable": 1}
    monkeypatch.setattr(ImagePool, "encoded", encoded)
    assert curate([nested], out, None)["dropped"] == {}


def damaged(file: Path, part: bytes) -> None:
    """The file with one bit of `part`, which stands in it once, turned over."""
    content = file.read_bytes()
    assert content.count(part) == 1
    file.write_bytes(content.replace(part, bytes([part[0] ^ 1]) + part[1:]))


def test_what_a_bad_disk_changed_in_a_scan_or_comparison_is_done_again(
    nested: Path, tmp_path: Path
) -> None:
    """The files open all the same; the digest of an image, or an agreement, would be another."""
    out, fresh = tmp_path / "out.parquet", tmp_path / "fresh.parquet"
    (nested / "b" / "again.jpg").write_bytes(jpeg(photo(1), 60))
    curate([nested], out, None)
    curate([nested], fresh, None)
    (part,) = (tmp_path / "out.work" / "pool-scan").glob("*.parquet")
    damaged(part, scan.digest((nested / "a" / "0.jpg").read_bytes()))
    (known,) = (tmp_path / "out.work" / "agreement").iterdir()
    with np.load(tmp_path / "fresh.work" / "agreement" / known.name) as arrays:
        damaged(known, arrays["agreement"][:1].tobytes())
    curate([nested], out, None)
    assert pq.read_table(out).equals(pq.read_table(fresh))
