from __future__ import annotations

import os
import pickle
import socket
import time
from pathlib import Path

import numpy as np
import pytest

from openeupe.data.decode import BrokenImage
from openeupe.data.folders import FolderSource
from openeupe.errors import InputError

from .conftest import Maker, picture


def _tree(root: Path, *names: str) -> None:
    for number, name in enumerate(names):
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        picture(number).save(file)


def _inside(source: FolderSource) -> list[str]:
    return [os.path.relpath(source.name(i), source.root) for i in range(len(source))]


def test_any_depth_in_name_order(tmp_path: Path) -> None:
    _tree(tmp_path, "b/2.png", "b/1.JPG", "a.webp", "b/c/d/3.tiff", "b.c/4.jpeg", "Z.bmp", "x.tif")
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "png").write_text("no image either")
    (tmp_path / "._a.jpg").write_text("left by macOS")
    source = FolderSource(tmp_path)
    expected = ["Z.bmp", "a.webp", "b.c/4.jpeg", "b/1.JPG", "b/2.png", "b/c/d/3.tiff", "x.tif"]
    assert _inside(source) == expected
    assert np.array_equal(np.asarray(source.read(4)), np.asarray(picture(0)))
    assert source.classes is None
    assert source.label(0) is None


def test_order_does_not_come_from_the_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _tree(tmp_path, "a/1.png", "b/2.png", "3.png")
    before = _inside(FolderSource(tmp_path))
    scandir = os.scandir

    class Backwards:
        def __init__(self, path: Path) -> None:
            self.entries = list(scandir(path))[::-1]

        def __enter__(self) -> list[os.DirEntry[str]]:
            return self.entries

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(os, "scandir", Backwards)
    assert _inside(FolderSource(tmp_path)) == before


def test_classes_are_the_first_folders(tmp_path: Path) -> None:
    _tree(tmp_path, "dog/1.png", "cat/x/2.png", "cat/3.png")
    source = FolderSource(tmp_path)
    assert source.classes == ["cat", "dog"]
    assert [source.label(i) for i in range(3)] == [0, 0, 1]


def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    _tree(tmp_path / "real", "1.png")
    root = tmp_path / "root"
    root.mkdir()
    (root / "folder").symlink_to(tmp_path / "real")
    (root / "file.png").symlink_to(tmp_path / "real" / "1.png")
    (root / "loop").symlink_to(root)
    (root / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    source = FolderSource(root)
    assert _inside(source) == ["file.png", "folder/1.png", "gone.jpg"]
    with pytest.raises(BrokenImage, match=r"gone\.jpg"):
        source.read(2)


def test_travels_to_workers(make_folder: Maker) -> None:
    source = FolderSource(make_folder(3))
    copy = pickle.loads(pickle.dumps(source))
    assert copy.read(2).tobytes() == source.read(2).tobytes()


def test_missing_and_empty_are_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere is not a folder"):
        FolderSource(tmp_path / "nowhere")
    (tmp_path / "a.gif").write_text("")
    with pytest.raises(InputError, match=r"holds no images: .*\.jpg.*\.webp"):
        FolderSource(tmp_path)


def test_held_out_images_are_the_same_ones_when_others_come(tmp_path: Path) -> None:
    _tree(tmp_path, *(f"{i % 4}/{i}.png" for i in range(40)))
    whole = FolderSource(tmp_path)
    train, heldout = (
        FolderSource(tmp_path, heldout=0.3, part=part) for part in ("train", "heldout")
    )
    assert sorted(_inside(train) + _inside(heldout)) == _inside(whole)
    assert 4 <= len(heldout) <= 20  # 12 expected, standard deviation 2.9
    assert train.classes == heldout.classes == ["0", "1", "2", "3"]
    assert [heldout.label(i) for i in range(len(heldout))] == [
        int(name[0]) for name in _inside(heldout)
    ]
    _tree(tmp_path, "0/a new one.png")
    after = FolderSource(tmp_path, heldout=0.3, part="heldout")
    assert set(_inside(after)) - {"0/a new one.png"} == set(_inside(heldout))


def test_a_part_without_images_is_refused(tmp_path: Path) -> None:
    _tree(tmp_path, "only.png")
    with pytest.raises(InputError, match=r"leaves no image in the part 'heldout'"):
        FolderSource(tmp_path, heldout=1e-9, part="heldout")
    assert len(FolderSource(tmp_path, heldout=1e-9)) == 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a system without named pipes")
def test_what_is_no_file_is_never_opened(tmp_path: Path) -> None:
    """A pipe waits for ever, /dev/zero never ends, a socket is no image: all called `*.jpg`."""
    _tree(tmp_path, "a.png")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    (tmp_path / "linked-pipe.jpg").symlink_to(tmp_path / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(tmp_path / "socket.jpg"))
    source = FolderSource(tmp_path)
    assert _inside(source) == ["a.png"]
    assert source.fingerprint


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a system without named pipes")
def test_a_file_that_became_a_pipe_is_a_broken_image(tmp_path: Path) -> None:
    _tree(tmp_path, "a.png", "b.png")
    source = FolderSource(tmp_path)
    (tmp_path / "a.png").unlink()
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(BrokenImage, match="not a file"):
        source.read(0)
    with pytest.raises(OSError, match="not a file"):
        source.encoded(0)


def test_a_file_of_a_terabyte_is_a_broken_image(tmp_path: Path) -> None:
    _tree(tmp_path, "a.bmp")
    with (tmp_path / "a.bmp").open("r+b") as file:
        file.truncate(2**40)  # sparse: it takes no space
    source = FolderSource(tmp_path)
    with pytest.raises(BrokenImage, match="1073741824"):
        source.read(0)
    with pytest.raises(OSError, match="1073741824"):
        source.encoded(0)
    with pytest.raises(InputError, match=r"a\.bmp.*1073741824"):
        _ = source.fingerprint


def test_links_that_make_too_many_paths_are_refused_soon(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for level in range(40):
        (root / f"{level:02d}").mkdir(parents=True)
    _tree(root, "39/a.png")
    for level in range(39):
        for name in ("x", "y"):
            (root / f"{level:02d}" / name).symlink_to(root / f"{level + 1:02d}")
    started = time.process_time()
    with pytest.raises(InputError, match=r"links.*1000"):
        FolderSource(root / "00")
    assert time.process_time() - started < 10


def test_folders_deeper_than_pythons_stack(tmp_path: Path) -> None:
    here, depth = os.getcwd(), 1200
    os.chdir(tmp_path)
    try:
        for _ in range(depth):
            os.mkdir("d")
            os.chdir("d")
        picture(0).save("a.png")
        assert len(FolderSource(tmp_path)) == 1
    finally:  # pytest itself cannot remove what is so deep
        Path("a.png").unlink(missing_ok=True)
        for _ in range(depth):
            os.chdir("..")
            os.rmdir("d")
        os.chdir(here)
