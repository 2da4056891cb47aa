"""A power cut loses nothing finished; damage is found and named; only our own files are deleted."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from openeupe.distillation.checkpoint import (
    CHECKPOINTS,
    CheckpointWriter,
    checkpoints,
    newest_whole,
    remove_checkpoints,
)
from openeupe.distillation.recipe import Recipe
from openeupe.distillation.run import _tidy, run_recipe
from openeupe.distillation.teacher_cache import remove_cache
from openeupe.distillation.trainer import Trainer
from openeupe.errors import InputError
from tests.lines import Lines

from ..recorded import Disk


@pytest.fixture
def one_stage(raw_recipe: dict[str, Any]) -> Recipe:
    raw_recipe["stages"] = {"proxy": raw_recipe["stages"]["proxy"]}
    raw_recipe["stages"]["proxy"] |= {"steps": 3, "checkpoint_every": 1, "log_every": 1}
    return Recipe.model_validate(raw_recipe)


def finished(recipe: Recipe, folder: Path) -> bytes:
    run_recipe(recipe, folder)
    return (folder / "proxy" / "proxy" / "model.safetensors").read_bytes()


def interrupted(recipe: Recipe, folder: Path, monkeypatch: pytest.MonkeyPatch, at: int = 2) -> None:
    """Leave a run as a kill before step `at` does."""
    step = Trainer.step

    def cut(self: Trainer, images: Any, number: int, *more: Any) -> Any:
        if number == at:
            raise KeyboardInterrupt
        return step(self, images, number, *more)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", cut)
        with pytest.raises(KeyboardInterrupt):
            run_recipe(recipe, folder)


def damaged(file: Path) -> None:
    """Zero some bytes in the middle, as a bad disk does."""
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 400] = bytes(400)
    file.write_bytes(content)


def recorded(recipe: Recipe, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Disk, Path]:
    """What a whole run does to its files, and the folder of its stage."""
    disk = Disk(folder)
    disk.watch(monkeypatch)
    finished(recipe, folder / "run")
    return disk, folder / "run" / "proxy"


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="reads /proc")
def test_a_stage_is_on_the_disk_before_it_counts_as_finished_and_checkpoints_go(
    one_stage: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, stage = recorded(one_stage, tmp_path, monkeypatch)
    marker = disk.first("rename", stage / "finished.json")
    for name in ("config.json", "model.safetensors", "heads.safetensors",
                 "statistics.safetensors", "distillation.json"):  # fmt: skip
        assert disk.settled(stage / "proxy" / name) < marker, name
    certain = disk.settled(stage / "finished.json")
    last = max(number for number, (kind, path, _) in enumerate(disk.events)
               if kind == "rename" and path.parent == stage / CHECKPOINTS)  # fmt: skip
    gone = [number for number, (kind, path, _) in enumerate(disk.events)
            if kind == "remove" and path.name == "step-000000003"]  # fmt: skip
    assert gone
    assert min(gone) > certain > last
    # A checkpoint is on the disk before an older one is deleted.
    for number, (kind, path, _) in enumerate(disk.events[:marker]):
        if kind == "remove" and path.name.startswith("step-"):
            newer = stage / CHECKPOINTS / f"step-{int(path.name[5:]) + 2:09d}"
            assert disk.settled(newer / "state.json") < number


def test_a_finished_student_that_was_damaged_is_not_called_done(
    one_stage: Recipe, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    finished(one_stage, folder)
    for name in ("model.safetensors", "heads.safetensors", "config.json"):
        file = folder / "proxy" / "proxy" / name
        whole = file.read_bytes()
        damaged(file)
        with pytest.raises(InputError, match=f"{name} is damaged.*delete"):
            finished(one_stage, folder)
        file.unlink()
        with pytest.raises(InputError, match=name):
            finished(one_stage, folder)
        file.write_bytes(whole)
    finished(one_stage, folder)
    ending = json.loads((folder / "proxy" / "finished.json").read_text())
    for told, about in (
        ({"seed": 0}, r"finished\.json.*files"),
        ({"files": {}}, "no file of proxy"),
    ):
        (folder / "proxy" / "finished.json").write_text(json.dumps(told))
        with pytest.raises(InputError, match=about):
            finished(one_stage, folder)
    (folder / "proxy" / "finished.json").write_text(json.dumps(ending))
    finished(one_stage, folder)
    (folder / "proxy" / "finished.json").write_text("")
    with pytest.raises(InputError, match=r"finished\.json is damaged"):
        finished(one_stage, folder)


@pytest.mark.parametrize("what", ["shard", "state.json"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_taken(
    one_stage: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    whole = finished(one_stage, tmp_path / "whole")
    folder = tmp_path / "run"
    interrupted(one_stage, folder, monkeypatch)
    kept = folder / "proxy" / CHECKPOINTS
    newest = checkpoints(kept)[-1]
    file = next(newest.glob("*.safetensors")) if what == "shard" else newest / "state.json"
    damaged(file) if what == "shard" else file.write_text(file.read_text().replace(": 2", ": 1", 1))
    said = Lines()
    run_recipe(one_stage, folder, progress=said)
    assert f"checkpoint {newest} is damaged ({file.name}" in said.text
    assert "continuing from step-000000001" in said.text
    assert (folder / "proxy" / "proxy" / "model.safetensors").read_bytes() == whole
    assert not kept.exists()


def test_if_all_checkpoints_are_damaged_nothing_is_deleted_and_training_does_not_begin_anew(
    one_stage: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    interrupted(one_stage, folder, monkeypatch)
    kept = folder / "proxy" / CHECKPOINTS
    for path in checkpoints(kept):
        damaged(next(path.glob("*.safetensors")))
    before = sorted(p for p in kept.rglob("*"))
    with pytest.raises(InputError, match=r"step-000000002 is damaged \(.*safetensors.*delete"):
        finished(one_stage, folder)
    assert sorted(p for p in kept.rglob("*")) == before


def test_a_damaged_checkpoint_never_counts_as_one_of_the_newest(tmp_path: Path) -> None:
    writer = CheckpointWriter()
    for step in (1, 2):
        writer.save(tmp_path, step, {}, {})
        writer.wait()
    (tmp_path / "step-000000002" / "state.json").write_text("{}")
    said: list[str] = []
    assert newest_whole(tmp_path, said.append) == tmp_path / "step-000000001"
    assert len(said) == 1
    writer.save(tmp_path, 2, {}, {}, keep=1)
    writer.wait()
    assert newest_whole(tmp_path, said.append) == tmp_path / "step-000000002"
    remove_checkpoints(tmp_path)
    assert not tmp_path.exists()


def test_tidying_deletes_nothing_but_what_a_stage_makes(tmp_path: Path) -> None:
    foreign = [".git/config", ".ssh/key", "checkpoints/mine.pt", "checkpoints/step-x/a",
               "teacher_cache/photos.zip", ".writing-notes/a", ".env"]  # fmt: skip
    ours = ["checkpoints/step-000000001/state.json", "checkpoints/.writing-2/a",
            "teacher_cache/00000000.safetensors", "teacher_cache/teacher_cache.json"]  # fmt: skip
    for name in foreign + ours:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    _tidy(tmp_path)
    left = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert left == set(foreign)


@pytest.mark.skipif(os.name == "nt", reason="links")
def test_tidying_follows_no_link_out_of_the_stage(tmp_path: Path) -> None:
    other = tmp_path / "other"
    (other / "step-000000001").mkdir(parents=True)
    (other / "00000000.safetensors").write_text("x")
    stage = tmp_path / "stage"
    (stage / "checkpoints").mkdir(parents=True)
    (stage / "checkpoints" / "step-000000001").symlink_to(other, target_is_directory=True)
    (stage / "teacher_cache").symlink_to(other, target_is_directory=True)
    remove_checkpoints(stage / "checkpoints")
    remove_cache(stage / "teacher_cache")
    assert len(list(other.iterdir())) == 2


@pytest.mark.parametrize(
    "name", ["teacher_cache", "checkpoints", "tensorboard", "Teacher_Cache", "evaluations"]
)
def test_a_student_may_not_be_called_like_a_folder_that_is_deleted(
    raw_recipe: dict[str, Any], name: str
) -> None:
    students = raw_recipe["stages"]["proxy"]["students"]
    raw_recipe["stages"] = {"proxy": raw_recipe["stages"]["proxy"]}
    students[name] = students.pop("proxy")
    with pytest.raises(ValueError, match=f"students.{name}: {name} is a reserved name"):
        Recipe.model_validate(raw_recipe)


def test_metrics_are_on_the_disk_before_the_checkpoint_that_follows_them(
    one_stage: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, stage = recorded(one_stage, tmp_path, monkeypatch)
    flushed = disk.first("flush", stage / "metrics.jsonl")
    assert flushed < disk.first("rename", stage / CHECKPOINTS / "step-000000001")
    assert json.loads((stage / "metrics.jsonl").read_text().splitlines()[0])["step"] == 1
