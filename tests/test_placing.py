"""Nothing is lost and nothing is left when a folder replaces another, whenever it is cut off."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from openeupe import files, placing
from openeupe.placing import partial_folder, take_place


def ours(folder: Path) -> set[str]:
    return {"model", "export.json"}


def write(folder: Path, text: str) -> None:
    with partial_folder(folder, ours) as part:
        (part / "model").write_text(text)
        (part / "export.json").write_text(text)
        take_place(part, folder, ours)


def dead() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_files_are_flushed_before_they_take_their_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    flush, rename = files.flush, Path.rename

    def record_flush(path: Path) -> None:
        calls.append(f"fsync {'part' if path.name.endswith('writing') else path.name}")
        flush(path)

    def record_rename(self: Path, target: Path) -> Path:
        calls.append(f"rename to {target.name.split('.')[-1]}")
        return rename(self, target)

    write(tmp_path / "out", "old")
    for owner in (files, placing):
        monkeypatch.setattr(owner, "flush", record_flush)
    monkeypatch.setattr(Path, "rename", record_rename)
    write(tmp_path / "out", "new")
    assert sorted(calls[:2]) == ["fsync export.json", "fsync model"]
    last = f"fsync {tmp_path.name}"
    assert calls[2:] == ["fsync part", "rename to before", "rename to out", last]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_only_our_own_files_are_replaced(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(out, "old")
    (out / "evaluations").mkdir()
    (out / "evaluations" / "results.json").write_text("mine")
    write(out, "new")
    assert (out / "model").read_text() == "new"
    assert (out / "evaluations" / "results.json").read_text() == "mine"


def test_leavings_of_killed_processes_are_removed_and_no_others(tmp_path: Path) -> None:
    host = files._HOST
    gone = tmp_path / f".out.{dead()}@{host}.writing"
    others = [
        tmp_path / f".out.{os.getppid()}@{host}.writing",  # runs
        tmp_path / f".out.{dead()}@elsewhere.writing",  # may run
        tmp_path / f".out.b.{dead()}@{host}.writing",  # of another folder
        tmp_path / ".out.d",
        tmp_path / ".out-abcdefgh",
    ]
    for path in (gone, *others):
        (path / "deep").mkdir(parents=True)
    write(tmp_path / "out", "new")
    assert not gone.exists()
    assert all((path / "deep").is_dir() for path in others)


def test_an_interrupted_replacement_is_completed(tmp_path: Path) -> None:
    """Killed after the old folder was set aside: before the new one came, or after."""
    out, before = tmp_path / "out", tmp_path / f".out.{dead()}@{files._HOST}.before"
    for name in ("model", "export.json", "notes"):
        before.mkdir(exist_ok=True)
        (before / name).write_text("old")
    placing.recover(out, ours)
    assert sorted(path.name for path in out.iterdir()) == ["export.json", "model", "notes"]
    out.rename(before)
    out.mkdir()
    (out / "model").write_text("new")
    placing.recover(out, ours)
    assert (out / "notes").read_text() == "old"
    assert (out / "model").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_old_folder_comes_back_if_the_new_one_cannot_be_placed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "out", "old")
    rename = Path.rename

    def fails(self: Path, target: Path) -> Path:
        if self.name.endswith(".writing"):
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(OSError, match="Input/output error"):
        write(tmp_path / "out", "new")
    assert (tmp_path / "out" / "model").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_quicker_process_is_replaced_in_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, rename, raced = tmp_path / "out", Path.rename, []

    def race(self: Path, target: Path) -> Path:
        if self.name.endswith(".writing") and not raced:
            raced.append(True)
            out.mkdir()
            (out / "model").write_text("quicker")
        return rename(self, target)

    write(out, "old")
    (out / "notes").write_text("mine")
    monkeypatch.setattr(Path, "rename", race)
    write(out, "new")
    assert (out / "model").read_text() == "new"
    assert (out / "notes").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
