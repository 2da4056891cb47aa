from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from torch import Tensor

from openeupe.curation import CurateConfig, curate
from openeupe.curation.summary import summary
from openeupe.curation.tars import write_shards
from openeupe.data import ManifestSource
from openeupe.encoders import Encoder
from openeupe.errors import InputError
from openeupe.locks import locked

from .conftest import jpeg, photo

SMALL = CurateConfig(resolution=32, clusters=[3], hash_distance=12)


def rows(manifest: Path) -> dict[str, dict[str, Any]]:
    """The rows by name, with the name of what each is a copy of."""
    found = pq.read_table(manifest).to_pylist()
    for row in found:
        row["of"] = None if row["of"] is None else found[row["of"]]["path"]
    return {row["path"]: row for row in found}


def reasons(manifest: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, row in rows(manifest).items():
        found.setdefault(row["reason"], []).append(name)
    return found


def test_a_pool_by_bytes_and_hashes(image_pool: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    about = curate([image_pool], out, None)
    assert {k: v for k, v in reasons(out).items() if k != "kept"} == {
        "unreadable": ["broken.jpg", "empty.png"],
        "small": ["tiny.png"],
        "narrow": ["narrow.png"],
        "copy": ["deep/exact.jpg"],
        "near copy": ["again.jpg", "mirror.jpg"],
    }
    told = rows(out)
    assert told["deep/exact.jpg"]["of"] == "00.jpg"
    assert told["again.jpg"]["of"] == "01.jpg"
    assert told["mirror.jpg"]["of"] == "02.jpg"
    assert about["kept"] == 12
    assert len(ManifestSource(out)) == 12
    text = summary(out)
    assert "| copy | 1 |" in text
    assert "- broken.jpg" in text


def test_mirrored_images_may_stay(image_pool: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    curate([image_pool], out, None, CurateConfig(mirrored=False))
    assert rows(out)["mirror.jpg"]["reason"] == "kept"


def test_leaks_and_their_copies_are_dropped_by_name(image_pool: Path, tmp_path: Path) -> None:
    test, out = tmp_path / "test", tmp_path / "out.parquet"
    test.mkdir()
    (test / "a.jpg").write_bytes(jpeg(photo(0)))
    (test / "b.jpg").write_bytes(jpeg(photo(1).resize((100, 75)), 50))
    curate([image_pool], out, None, against=[test])
    assert reasons(out)["leak"] == ["00.jpg", "01.jpg", "again.jpg", "deep/exact.jpg"]
    assert rows(out)["01.jpg"]["against"].endswith("b.jpg")
    assert "00.jpg shows" in summary(out)


def test_with_an_encoder(image_pool: Path, tmp_path: Path, encoder: Encoder) -> None:
    """Both must agree; clusters are balanced."""
    out, test = tmp_path / "out.parquet", tmp_path / "test"
    test.mkdir()
    (test / "b.jpg").write_bytes(jpeg(photo(1).crop((2, 2, 126, 94)), 50))
    about = curate([image_pool], out, encoder, SMALL, against=[test])
    told = rows(out)
    assert told["01.jpg"]["reason"] == told["again.jpg"]["reason"] == "leak"
    assert told["mirror.jpg"]["of"] == "02.jpg"
    assert told["mirror.jpg"]["bits"] <= 12
    assert told["mirror.jpg"]["cosine"] >= 0.85
    kept = [row for row in told.values() if row["reason"] == "kept"]
    assert about["kept"] == len(kept) == 11
    assert sum(row["weight"] for row in kept) == pytest.approx(11, rel=1e-5)
    assert {row["cluster"] for row in kept} <= {0, 1, 2}
    assert told["mirror.jpg"]["cluster"] == told["02.jpg"]["cluster"]
    assert about["balance"]["after"]["gini"] <= about["balance"]["before"]["gini"]


def test_a_size_and_a_seed_set(image_pool: Path, tmp_path: Path, encoder: Encoder) -> None:
    out, like = tmp_path / "out.parquet", tmp_path / "like"
    curate([image_pool], out, encoder, SMALL.model_copy(update={"size": 5}))
    assert len(ManifestSource(out)) == 5
    assert len(reasons(out)["balance"]) == 7
    like.mkdir()
    (like / "seed.jpg").write_bytes(jpeg(photo(7)))
    config = SMALL.model_copy(update={"like_each": 3})
    curate([image_pool], out, encoder, config, like=[like])
    kept = reasons(out)["kept"]
    assert len(kept) == 3
    assert "07.jpg" in kept
    assert len(reasons(out)["unlike"]) == 9


def test_shards_are_a_pool_too(image_pool: Path, tars: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    curate([image_pool, str(tars / "{0..1}.tar")], out, None)
    source = ManifestSource(out)
    assert len(source) == 18
    assert source.read(17).size == (128, 96)
    assert "1.tar, byte" in source.name(17)


def test_kept_images_become_shards_that_move(image_pool: Path, tars: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    curate([image_pool, tars], out, None)
    limit = 40_000
    write_shards(out, tmp_path / "made", limit)
    shards = sorted((tmp_path / "made").glob("*.tar"))
    assert len(shards) > 1
    assert all(shard.stat().st_size <= limit for shard in shards)
    (tmp_path / "made").rename(tmp_path / "moved")
    before, after = ManifestSource(out), ManifestSource(tmp_path / "moved" / "manifest.parquet")
    assert len(before) == len(after)
    for i in range(len(before)):
        assert before.read(i).tobytes() == after.read(i).tobytes()


def test_an_image_that_changed_since_is_not_written_to_shards(
    image_pool: Path, tmp_path: Path
) -> None:
    """The manifest next to the shards would give it the size, digest and weight of another."""
    out = tmp_path / "out.parquet"
    curate([image_pool], out, None)
    (image_pool / "05.jpg").write_bytes(jpeg(photo(77)))
    with pytest.raises(InputError, match=r"05\.jpg changed since it was curated: curate again"):
        shards(out, tmp_path / "made")
    assert not (tmp_path / "made").exists()


def shards(out: Path, folder: Path) -> None:
    write_shards(out, folder, 40_000)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_shards_never_replace_the_tars_that_they_are_made_of(
    image_pool: Path, tars: Path, tmp_path: Path
) -> None:
    """`curate X.shards --out X.parquet shards=1GB` wrote to where it read from."""
    curate([image_pool], tmp_path / "first.parquet", None)
    source = tmp_path / "X.shards"
    shards(tmp_path / "first.parquet", source)
    before = contents(source)
    for given in ([source], [source, tars]):
        out = tmp_path / "X.parquet"
        curate(given, out, None)
        with pytest.raises(InputError, match=r"images are in .*X.shards.* choose another folder"):
            shards(out, source)
        assert contents(source) == before


@pytest.mark.parametrize("name", ["00000.tar", "mine.tar", ".hidden", "notes.txt"])
def test_shards_replace_no_file_of_others(image_pool: Path, tmp_path: Path, name: str) -> None:
    out, folder = tmp_path / "X.parquet", tmp_path / "X.shards"
    curate([image_pool], out, None)
    folder.mkdir()
    (folder / name).write_text("mine")
    with pytest.raises(InputError, match=f"other files .{name}"):
        shards(out, folder)
    assert contents(folder) == {name: b"mine"}


def test_shards_are_replaced_and_leftovers_do_not_block_the_repeat(
    image_pool: Path, tmp_path: Path
) -> None:
    out, folder = tmp_path / "X.parquet", tmp_path / "X.shards"
    curate([image_pool], out, None)
    folder.mkdir()
    for name in ("00000.tar", ".manifest.parquet.writing"):  # as earlier versions left them
        (folder / name).write_text("half")
    shards(out, folder)
    made = contents(folder)
    shards(out, folder)
    assert contents(folder) == made
    (folder / "more.tar").write_text("mine")
    with pytest.raises(InputError, match=r"other files .more.tar"):
        shards(out, folder)
    assert (folder / "more.tar").exists()
    assert not [p.name for p in tmp_path.iterdir() if p.name.endswith(".writing")]


def test_a_cut_off_copy_leaves_the_old_shards(
    image_pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, folder = tmp_path / "X.parquet", tmp_path / "X.shards"
    curate([image_pool], out, None)
    shards(out, folder)
    before = contents(folder)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("openeupe.curation.tars._Shards.add", full)
    with pytest.raises(InputError, match=r"No space left.*free space and curate again"):
        shards(out, folder)
    assert contents(folder) == before
    assert not [p.name for p in tmp_path.iterdir() if p.name.endswith(".writing")]


def test_a_work_folder_is_one_process_s(image_pool: Path, tmp_path: Path) -> None:
    out = tmp_path / "X.parquet"
    (tmp_path / "X.work").mkdir()
    with locked(tmp_path / "X.work", "the work folder"), pytest.raises(InputError, match="in use"):
        curate([image_pool], out, None)
    curate([image_pool], out, None)


@pytest.fixture
def parts_of_five(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept between runs is kept for every five images."""
    for name in ("openeupe.curation.image_pool", "openeupe.curation.embed"):
        monkeypatch.setattr(f"{name}.PART", 5)


@pytest.mark.usefixtures("parts_of_five")
def test_what_was_done_is_not_done_again(
    image_pool: Path, tmp_path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second run, cut off in the middle of the first, gives the same manifest."""
    import openeupe.curation.image_pool as module
    import openeupe.curation.scan as scans

    whole, cut = tmp_path / "whole.parquet", tmp_path / "cut.parquet"
    curate([image_pool], whole, encoder, SMALL)
    look, looked = scans._look, []

    def failing(image_pool: module.ImagePool, row: int) -> dict[str, Any]:
        if len(looked) == 12:
            raise KeyboardInterrupt
        looked.append(row)
        return look(image_pool, row)

    monkeypatch.setattr(scans, "_look", failing)
    with pytest.raises(KeyboardInterrupt):
        curate([image_pool], cut, encoder, SMALL.model_copy(update={"workers": 1}))
    assert not cut.exists()
    monkeypatch.setattr(
        scans, "_look", lambda image_pool, row: looked.append(row) or look(image_pool, row)
    )
    looked.clear()
    curate([image_pool], cut, encoder, SMALL)
    assert min(looked) == 10  # two parts of five were there
    assert pq.read_table(cut).equals(pq.read_table(whole))
    looked.clear()
    curate([image_pool], cut, encoder, SMALL)
    curate(
        [image_pool],
        tmp_path / "other.parquet",
        None,
        CurateConfig(work=str(tmp_path / "cut.work")),
    )
    assert not looked
    (image_pool / "03.jpg").write_bytes(jpeg(photo(99)))
    curate([image_pool], cut, encoder, SMALL)
    assert len(looked) == 5  # the part of the changed file
    assert not np.array_equal(rows(cut)["03.jpg"]["digest"], rows(whole)["03.jpg"]["digest"])


@pytest.mark.usefixtures("parts_of_five")
def test_cut_off_while_embedding(
    image_pool: Path, tmp_path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was embedded before the interruption is not embedded again; the manifest is the same."""
    import openeupe.curation.embed as embed

    whole, cut = tmp_path / "whole.parquet", tmp_path / "cut.parquet"
    curate([image_pool], whole, encoder, SMALL)
    encode, seen = embed.Embeddings._encode, []

    def failing(self: embed.Embeddings, views: Tensor) -> embed.Vectors:
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(len(views))
        return encode(self, views)

    monkeypatch.setattr(embed.Embeddings, "_encode", failing)
    with pytest.raises(KeyboardInterrupt):
        curate([image_pool], cut, encoder, SMALL)
    assert not cut.exists()
    done = sum(seen)
    monkeypatch.setattr(
        embed.Embeddings, "_encode", lambda self, v: seen.append(len(v)) or encode(self, v)
    )
    seen.clear()
    curate([image_pool], cut, encoder, SMALL)
    assert sum(seen) == len(reasons(whole)["kept"] + reasons(whole)["near copy"]) - done
    assert pq.read_table(cut).equals(pq.read_table(whole))


def test_mistakes_are_one_line(image_pool: Path, tmp_path: Path, encoder: Encoder) -> None:
    out = tmp_path / "out.parquet"
    empty = tmp_path / "nothing"
    empty.mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.jpg").write_bytes(b"not an image")
    for arguments, message in [
        (([empty], out, None), "holds no images"),
        (([tmp_path / "bad"], out, None), r"no image can be read .*1 unreadable"),
        (([image_pool], tmp_path / "out.csv", None), "ends in .parquet"),
        (([image_pool], Path("/proc/out.parquet"), None), "cannot be written"),
        (([image_pool], out, None, CurateConfig(size=3)), "size has no effect without an encoder"),
        (([image_pool], out, None, CurateConfig(balance="neighbours")), "balance has no effect"),
        (([image_pool], out, None, CurateConfig(seed=1)), "seed has no effect without an encoder"),
        (([image_pool], out, encoder, CurateConfig(near=0.3)), "without balance=neighbours"),
        (([image_pool], out, encoder, CurateConfig(like_each=3)), "like_each .* without `like`"),
        (([image_pool], out, None, CurateConfig(leak_agreement=0.9)), "without `against`"),
        (
            ([image_pool], out, None, CurateConfig(hash_distance=20)),
            "finds too many copies",
        ),
        (([image_pool], out, encoder, CurateConfig(clusters=[3, 3])), "the finest level first"),
    ]:
        with pytest.raises(InputError, match=message) as told:
            curate(*arguments)  # type: ignore[arg-type]
        assert "\n" not in str(told.value)


def test_old_shards_are_in_their_place_if_the_new_ones_cannot_get_there(
    image_pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, folder = tmp_path / "X.parquet", tmp_path / "X.shards"
    curate([image_pool], out, None)
    shards(out, folder)
    before = contents(folder)
    rename = Path.rename

    def stopped(self: Path, target: Path) -> Path:
        if self.name.endswith(".writing"):
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", stopped)
    with pytest.raises(KeyboardInterrupt):
        shards(out, folder)
    assert contents(folder) == before


def test_an_empty_path_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="an empty path holds no images"):
        curate([""], tmp_path / "m.parquet", None)


def test_a_path_that_is_not_utf8_is_one_line(tmp_path: Path) -> None:
    """As a shell gives a folder's name in another encoding."""
    with pytest.raises(InputError, match=r"\\udcff is no name in UTF-8: rename"):
        curate([tmp_path / "\udcff"], tmp_path / "m.parquet", None)
