"""A cache serves stages with some of its teachers, and is extended by those that it lacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from openeupe.distillation import teacher_cache_writer
from openeupe.distillation.teacher_cache import shard_path
from openeupe.distillation.teacher_cache_writer import TeacherCacheWriter
from openeupe.errors import InputError

from .test_teacher_cache import losses


def test_a_store_of_more_teachers_serves_a_stage_that_has_some_of_them(
    raw_views: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "kept")
    losses(raw_views, tmp_path / "both", teacher_cache="bf16", teacher_cache_path=path)
    del raw_views["stages"]["proxy"]["teachers"]["vit"]
    raw_views["stages"]["proxy"]["teacher_cache_path"] = None
    alone = losses(raw_views, tmp_path / "alone")
    with monkeypatch.context() as patch:
        patch.setattr(TeacherCacheWriter, "_finish", lambda *_: pytest.fail("nothing is missing"))
        assert losses(raw_views, tmp_path / "some", teacher_cache_path=path) == alone
    shard_path(tmp_path / "kept", 0).unlink()
    with pytest.raises(InputError, match="is incomplete, and vit of it is no teacher of proxy"):
        losses(raw_views, tmp_path / "cut", teacher_cache_path=path)


def test_a_store_is_extended_by_a_teacher_that_it_lacks(
    raw_views: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teacher_cache_writer, "SHARD_BYTES", 4_000)
    stage = raw_views["stages"]["proxy"]
    both = losses(raw_views, tmp_path / "both", teacher_cache="bf16", steps=4)
    path, vit = str(tmp_path / "kept"), stage["teachers"].pop("vit")
    alone = losses(raw_views, tmp_path / "alone", teacher_cache_path=path)
    stage["teachers"] = {
        "vit": vit,
        **stage["teachers"],
    }
    finish, done = TeacherCacheWriter._finish, []

    def cut(self: TeacherCacheWriter, *given: Any) -> None:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(given[0])
        finish(self, *given)

    def watched(self: TeacherCacheWriter, *given: Any) -> None:
        seen.append(given[0])
        finish(self, *given)

    monkeypatch.setattr(TeacherCacheWriter, "_finish", cut)
    with pytest.raises(KeyboardInterrupt):
        losses(raw_views, tmp_path / "first")
    seen: list[int] = []
    monkeypatch.setattr(TeacherCacheWriter, "_finish", watched)
    assert losses(raw_views, tmp_path / "first") == both
    assert seen
    assert not set(seen) & set(done)
    monkeypatch.setattr(TeacherCacheWriter, "_finish", lambda *_: pytest.fail("nothing is missing"))
    assert losses(raw_views, tmp_path / "second") == both
    del stage["teachers"]["vit"]
    assert losses(raw_views, tmp_path / "third") == alone
