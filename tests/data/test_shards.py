from __future__ import annotations

import os
import pickle
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from openeupe.data import shards as shards_module
from openeupe.data.decode import BrokenImage
from openeupe.data.shards import ShardSource, find_shards
from openeupe.errors import InputError

from .conftest import picture


def _png(number: int) -> bytes:
    file = BytesIO()
    picture(number).save(file, "PNG")
    return file.getvalue()


def _tar(path: Path, members: list[tuple[str, bytes]], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, BytesIO(content))
    return path


def _is(source: ShardSource, index: int, number: int) -> bool:
    return np.array_equal(np.asarray(source.read(index)), np.asarray(picture(number)))


def test_one_sample_per_key(tmp_path: Path) -> None:
    deep = "a/" * 120 + "9"  # longer than a plain tar header holds
    _tar(
        tmp_path / "s.tar",
        [
            ("1.json", b"{}"),
            ("1.png", _png(1)),
            ("1.txt", b"one"),
            ("sub/1.png", _png(2)),  # the same file name in a folder is another key
            ("3.cls", b"7"),  # a sample without an image
            ("4.seg.png", _png(99)),  # a mask, not the image
            ("4.PNG", _png(4)),
            ("4.webp", _png(98)),  # a second image of the key
            ("._5.png", b"left by macOS"),
            (deep + ".png", _png(9)),
        ],
    )
    source = ShardSource(tmp_path / "s.tar")
    assert [source.name(i).partition(": ")[2] for i in range(len(source))] == [
        *("1", "sub/1", "4"),
        deep,
    ]
    assert all(_is(source, index, number) for index, number in enumerate((1, 2, 4, 9)))


def test_links_and_folders_are_no_images(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        for kind, name in ((tarfile.SYMTYPE, "1.png"), (tarfile.DIRTYPE, "2.png")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/hostname"
            archive.addfile(info)
    with pytest.raises(InputError, match="holds no images"):
        ShardSource(tmp_path / "s.tar")


def test_patterns(tmp_path: Path) -> None:
    for number in (8, 9, 10):
        _tar(tmp_path / f"s-{number:03d}.tar", [(f"{number}.png", _png(number))])
    for pattern in ("", "s-{008..010}.tar", "s-{008,009,010}.tar", "s-*.tar", "s-0{08,09,1{0,}}.t"):
        path = str(tmp_path / pattern)
        if pattern.endswith(".t"):
            with pytest.raises(InputError, match=r"there is no .*s-0"):
                find_shards(path)
            continue
        source = ShardSource(path)
        assert [_is(source, i, number) for i, number in enumerate((8, 9, 10))] == [True] * 3
    with pytest.raises(InputError, match=r"there is no .*s-011\.tar"):
        ShardSource(str(tmp_path / "s-{009..011}.tar"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no \.tar files"):
        ShardSource(tmp_path / "empty")


def test_travels_and_reopens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards_module, "_OPEN_SHARDS", 2)
    for number in range(4):
        _tar(tmp_path / f"{number}.tar", [(f"{number}.png", _png(number))])
    source = ShardSource(tmp_path)
    assert all(_is(source, number, number) for number in (0, 1, 2, 3, 0, 2))
    assert source._files.count() == 2
    copy = pickle.loads(pickle.dumps(source))
    assert copy._files.count() == 0
    assert _is(copy, 3, 3)
    (tmp_path / "1.tar").unlink()
    with pytest.raises(BrokenImage, match=r"1\.tar: 1"):
        copy.read(1)


def test_damaged_shards_are_said(tmp_path: Path) -> None:
    members = [(f"{n}.png", _png(n)) for n in range(3)]
    whole = _tar(tmp_path / "whole.tar", members).read_bytes()
    (tmp_path / "text.tar").write_text("not a tar file")
    (tmp_path / "cut.tar").write_bytes(whole[: len(whole) // 10])
    _tar(tmp_path / "packed.tar", members, "w:gz")
    third = ShardSource(tmp_path / "whole.tar")._offsets[2] - 512
    damaged = bytearray(whole)
    damaged[third : third + 512] = b"x" * 512
    (tmp_path / "damaged.tar").write_bytes(damaged)
    for name in ("text", "cut", "packed", "damaged"):
        with pytest.raises(InputError, match=rf"{name}\.tar cannot be read as an uncompressed"):
            ShardSource(tmp_path / f"{name}.tar")


def test_broken_members_are_named(tmp_path: Path) -> None:
    source = ShardSource(_tar(tmp_path / "s.tar", [("a/1.png", _png(1)[:50])]))
    with pytest.raises(BrokenImage, match=r"s\.tar: a/1"):
        source.read(0)


@pytest.mark.parametrize("positioned", [True, False])
@pytest.mark.parametrize("kept_open", [2, 32])  # the former closes and reopens all the time
def test_threads_read_the_bytes_of_their_own_members(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept_open: int, positioned: bool
) -> None:
    if not positioned:  # as on Windows
        monkeypatch.delattr(os, "pread", raising=False)
    monkeypatch.setattr(shards_module, "_OPEN_SHARDS", kept_open)
    contents = [f"{number:05d}".encode() * (20 + number % 50) for number in range(900)]
    for shard in range(3):
        members = [(f"{n}.png", contents[n]) for n in range(shard * 300, shard * 300 + 300)]
        _tar(tmp_path / f"{shard}.tar", members)
    source = ShardSource(tmp_path)
    order = np.random.default_rng(0).permutation(np.repeat(np.arange(900), 10)).tolist()
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(source.encoded, order))
    assert sum(content != contents[n] for n, content in zip(order, read, strict=True)) == 0


def test_a_member_that_was_cut_off_since_is_broken(tmp_path: Path) -> None:
    path = _tar(tmp_path / "a.tar", [("1.png", _png(1)), ("2.png", _png(2))])
    source = ShardSource(path)
    with path.open("r+b") as file:
        file.truncate(int(source.place(1)[1]) + 10)
    assert _is(source, 0, 1)
    with pytest.raises(OSError, match="ends"):
        source.encoded(1)
    with pytest.raises(BrokenImage, match="ends"):
        source.read(1)


def test_a_member_of_a_terabyte_is_refused(tmp_path: Path) -> None:
    for size in (2**40, 2**62):
        info = tarfile.TarInfo("a.jpg")
        info.size = size
        (tmp_path / "a.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
        with pytest.raises(InputError, match=r"a\.tar.*a\.jpg.*1073741824"):
            ShardSource(tmp_path / "a.tar")


def test_a_member_that_ends_behind_the_file_is_refused(tmp_path: Path) -> None:
    info = tarfile.TarInfo("a.jpg")
    info.size = 10**6
    (tmp_path / "a.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
    with pytest.raises(InputError, match=r"a\.tar"):
        ShardSource(tmp_path / "a.tar")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a system without named pipes")
def test_what_is_no_tar_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.tar")
    (tmp_path / "zero.tar").symlink_to("/dev/zero")
    for name in ("pipe.tar", "zero.tar"):
        with pytest.raises(InputError, match="not a file"):
            ShardSource(tmp_path / name)


def test_a_pattern_of_too_many_files_is_refused_soon() -> None:
    for pattern in ("a{0..99999999999}.tar", "{0..9999}{0..9999}.tar", "{a,b}" * 40 + ".tar"):
        started = time.process_time()
        with pytest.raises(InputError, match="1000000"):
            find_shards(pattern)
        assert time.process_time() - started < 5
