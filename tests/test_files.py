"""Files are old or new, never half; what killed processes left goes; the umask decides."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from openeupe import encoders
from openeupe.files import durable, partial_folder, partial_path, remove_partials, write_atomically

from .recorded import Disk

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs POSIX")


@pytest.fixture
def ended() -> str:
    """The name of a partial file of `file` whose process is gone."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    own = partial_path(Path("file")).name
    return own.replace(f".{os.getpid()}@", f".{child.pid}@")


def test_a_file_is_flushed_renamed_and_its_folder_flushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(tmp_path)
    disk.watch(monkeypatch)
    write_atomically(tmp_path / "file", "text")
    disk.settled(tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_error_while_writing_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")

    def write() -> None:
        with durable(tmp_path / "file") as partial:
            partial.write_text("half")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        write()
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"file": "old"}


def test_a_full_disk_is_the_same_error_whoever_writes(tmp_path: Path) -> None:
    message = "Error while serializing: I/O error: No space left on device (os error 28)"
    for writing in (durable, partial_folder):
        with pytest.raises(OSError, match="No space left") as error, writing(tmp_path / "file"):
            raise SafetensorError(message)
        assert error.value.errno == errno.ENOSPC
    with pytest.raises(SafetensorError, match="shape"), durable(tmp_path / "file"):
        raise SafetensorError("wrong shape")
    assert not list(tmp_path.iterdir())


def test_what_a_killed_process_left_is_removed_by_the_next_write(
    tmp_path: Path, ended: str
) -> None:
    (tmp_path / ended).write_text("half")
    write_atomically(tmp_path / "file", "new")
    assert {p.name for p in tmp_path.iterdir()} == {"file"}
    (tmp_path / ended).mkdir()
    (tmp_path / ended / "inside").write_text("half")
    with partial_folder(tmp_path / "file") as part:
        assert {p.name for p in tmp_path.iterdir()} == {"file", part.name}


def test_nothing_is_removed_that_a_living_process_writes_or_that_is_not_ours(
    tmp_path: Path, ended: str
) -> None:
    alive = ended.split("@")[0].rsplit(".", 1)[0] + f".{os.getppid()}@" + ended.split("@")[1]
    elsewhere = ended.split("@")[0] + "@another-host.writing"
    for name in (alive, elsewhere, ".git", ".file.writing", ".hidden"):
        (tmp_path / name).mkdir()
    remove_partials(tmp_path)
    write_atomically(tmp_path / "file", "new")
    names = {p.name for p in tmp_path.iterdir()}
    assert names == {alive, elsewhere, ".git", ".file.writing", ".hidden", "file"}


def test_a_partial_folder_inside_a_partial_folders_name_is_removed_too(
    tmp_path: Path, ended: str
) -> None:
    """An encoder is written whole into a folder that is itself written whole."""
    process = ended.removeprefix(".file.")
    (tmp_path / f".{ended}.{process}").mkdir()
    remove_partials(tmp_path, "other")
    assert len(list(tmp_path.iterdir())) == 1
    remove_partials(tmp_path, "file")
    assert not list(tmp_path.iterdir())


def test_two_processes_never_write_the_same_partial_file(tmp_path: Path) -> None:
    told = f"from openeupe.files import *; print(partial_path(Path({str(tmp_path)!r}) / 'file'))"
    other = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert Path(other.stdout.strip()) != partial_path(tmp_path / "file")


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o007, 0o660)])
def test_the_umask_decides_who_may_read(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        with durable(tmp_path / "weights") as partial:
            save_file({"a": torch.zeros(2)}, partial)
        write_atomically(tmp_path / "text", "text")
        encoders.save(encoders.create("raw_pixels"), tmp_path / "encoder")
    finally:
        os.umask(before)
    files = [tmp_path / "weights", tmp_path / "text", *(tmp_path / "encoder").iterdir()]
    assert {file.name: oct(file.stat().st_mode & 0o777) for file in files} == {
        file.name: oct(mode) for file in files
    }
    assert (tmp_path / "encoder").stat().st_mode & 0o777 == 0o777 & ~umask


def test_names_of_any_length_can_be_written(tmp_path: Path) -> None:
    write_atomically(tmp_path / ("x" * 250), "text")
    assert [len(p.name) for p in tmp_path.iterdir()] == [250]
