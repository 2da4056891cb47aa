"""Cached teacher outputs: the same training, whatever is killed, full or foreign."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load, load_file

from openeupe import encoders
from openeupe.data import recorded
from openeupe.distillation import teacher_cache_writer
from openeupe.distillation.metrics import read_metrics
from openeupe.distillation.recipe import Recipe, load_recipe
from openeupe.distillation.run import run_recipe
from openeupe.distillation.teacher_cache import CachedTokens, pack, shard_path, view_bytes
from openeupe.distillation.teacher_cache_writer import TeacherCacheWriter
from openeupe.encoders import Tokens
from openeupe.errors import InputError
from openeupe.locks import locked
from tests.lines import Lines

TIMES = ("images_per_s", "waiting")


@pytest.fixture
def raw(raw_views: dict[str, Any]) -> dict[str, Any]:
    """Its short name, for this file."""
    return raw_views


def losses(raw: dict[str, Any], folder: Path, **changes: Any) -> list[dict[str, float]]:
    raw["stages"]["proxy"] |= changes
    run_recipe(Recipe.model_validate(raw), folder)
    records = read_metrics(folder / "proxy" / "metrics.jsonl")
    return [{k: v for k, v in r.items() if k not in TIMES} for r in records]


def test_training_on_stored_outputs_is_training_on_computed_ones(
    raw: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teacher_cache_writer, "SHARD_BYTES", 20_000)  # several shards
    raw["stages"]["proxy"]["steps"] = 13  # every view more than once
    online = losses(raw, tmp_path / "online")
    for kind, off in (("bf16", 2e-3), ("int8", 2e-2)):
        cached = losses(raw, tmp_path / kind, teacher_cache=kind)
        for one, other in zip(cached, online, strict=True):
            for name, value in other.items():
                assert one[name] == pytest.approx(value, rel=off), (kind, name)
        assert not (tmp_path / kind / "proxy" / "teacher_cache").exists()  # the stage has ended


def test_views_augmented_on_the_device_are_stored_as_they_are_trained_on(
    raw: dict[str, Any], tmp_path: Path
) -> None:
    on_cpu = losses(raw, tmp_path / "cpu")
    raw["data"]["augment"] = {"on_device": True, "blur": 0.5, "grayscale": 0.2}
    online = losses(raw, tmp_path / "online")
    assert online != on_cpu
    for one, other in zip(
        losses(raw, tmp_path / "cached", teacher_cache="bf16"), online, strict=True
    ):
        for name, value in other.items():
            assert one[name] == pytest.approx(value, rel=2e-3), name


def test_the_size_is_told_before_and_the_error_after(raw: dict[str, Any], tmp_path: Path) -> None:
    raw["stages"]["proxy"] |= {
        "teacher_cache": "int8",
        "teacher_cache_path": str(tmp_path / "kept"),
        "steps": 1,
    }
    told = Lines()
    run_recipe(Recipe.model_validate(raw), tmp_path / "run", progress=told)
    assert "teacher outputs of 48 views as int8: 0.00 GiB" in told.text
    error = float(told.text.split("relative error of the tokens: ")[1].split()[1].strip("%,"))
    assert 0.1 < error < 2  # per cent
    files = list((tmp_path / "kept").glob("*.safetensors"))
    assert sum(f.stat().st_size for f in files) == pytest.approx(
        48 * view_bytes({"vit": (64, 64, 4), "net": (32, 32, 4)}, "int8"), rel=0.8
    )


def test_a_kill_leaves_whole_shards_and_only_the_rest_is_computed(
    raw: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teacher_cache_writer, "SHARD_BYTES", 20_000)
    whole = losses(raw, tmp_path / "whole", teacher_cache="bf16")
    finish, written = TeacherCacheWriter._finish, []

    def cut(self: TeacherCacheWriter, shard: int, *given: Any) -> None:
        if len(written) == 2:
            (self.folder / ".00000002.safetensors.writing").write_bytes(b"half")
            raise KeyboardInterrupt
        written.append(shard)
        finish(self, shard, *given)

    monkeypatch.setattr(TeacherCacheWriter, "_finish", cut)
    with pytest.raises(KeyboardInterrupt):
        losses(raw, tmp_path / "cut")
    kept = {shard_path(tmp_path / "cut" / "proxy" / "teacher_cache", s) for s in written}
    assert all(path.exists() for path in kept)
    stamps = {path: path.stat().st_mtime_ns for path in kept}
    again: list[int] = []

    def counted(self: TeacherCacheWriter, shard: int, *given: Any) -> None:
        assert {path: path.stat().st_mtime_ns for path in kept} == stamps
        again.append(shard)
        finish(self, shard, *given)

    monkeypatch.setattr(TeacherCacheWriter, "_finish", counted)
    assert losses(raw, tmp_path / "cut") == whole
    assert not set(again) & set(written)


def test_a_damaged_shard_is_found_and_computed_again(
    raw: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teacher_cache_writer, "SHARD_BYTES", 20_000)
    cache = tmp_path / "cache"
    losses(raw, tmp_path / "one", teacher_cache="int8", teacher_cache_path=str(cache), steps=2)
    shards = sorted(cache.glob("*.safetensors"))
    before = [shard.read_bytes() for shard in shards]
    content = bytearray(before[1])
    content[-400:] = bytes(400)
    shards[1].write_bytes(content)
    shards[2].write_bytes(before[2][:300])
    said = Lines()
    run_recipe(Recipe.model_validate(raw), tmp_path / "two", progress=said)
    assert f"2 damaged file(s) in {cache} ({shards[1].name}, {shards[2].name})" in said.text
    # Not to the byte: safetensors writes metadata in any order.
    for shard, content in zip(shards, before, strict=True):
        again, whole = load_file(shard), load(content)
        assert again.keys() == whole.keys()
        assert all(torch.equal(again[name], tensor) for name, tensor in whole.items())
    assert not [p.name for p in cache.iterdir() if p.name.endswith(".writing")]


def test_a_store_is_written_by_one_process_and_read_by_many(
    raw: dict[str, Any], tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    used = pytest.raises(InputError, match=f"cache {cache} is in use by process")
    with locked(cache, "the cache"), used:
        losses(raw, tmp_path / "one", teacher_cache="int8", teacher_cache_path=str(cache), steps=2)
    losses(raw, tmp_path / "one", teacher_cache="int8", teacher_cache_path=str(cache), steps=2)
    with locked(cache, "the cache"):
        losses(raw, tmp_path / "two", teacher_cache="int8", teacher_cache_path=str(cache), steps=2)


def test_a_full_disk_is_one_line_before_and_while_writing(
    raw: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        usage = shutil._ntuple_diskusage(100, 99, 1)  # type: ignore[attr-defined]
        patch.setattr(shutil, "disk_usage", lambda _: usage)
        with pytest.raises(InputError, match=r"need .* GiB and 0\.00 are .*teacher_cache_path"):
            losses(raw, tmp_path / "small", teacher_cache="bf16")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(teacher_cache_writer, "save_file", full)
        with pytest.raises(InputError, match=r"No space left.*run distill again") as error:
            losses(raw, tmp_path / "full", teacher_cache="bf16")
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "full" / "proxy" / "teacher_cache").glob(".0*"))


def test_a_kept_store_serves_another_run_but_no_other_teacher(
    raw: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "kept")
    first = losses(raw, tmp_path / "one", teacher_cache="bf16", teacher_cache_path=path)
    with monkeypatch.context() as patch:
        patch.setattr(TeacherCacheWriter, "_finish", lambda *_: pytest.fail("nothing is missing"))
        assert losses(raw, tmp_path / "two") == first
    raw["seed"], raw["data"]["views_seed"] = 1, 0  # the same views, other weights of the teachers
    with pytest.raises(InputError, match=r"other settings \(teachers\.vit\.identity: "):
        losses(raw, tmp_path / "three")
    with pytest.raises(InputError, match=r"other settings \(views: 2 then, 3 now\)"):
        losses(raw, tmp_path / "four", views=3)


def test_runs_of_other_seeds_can_share_views_and_what_is_stored_of_them(
    raw: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for teacher in raw["stages"]["proxy"]["teachers"].values():
        folder = tmp_path / teacher["encoder"]
        made = encoders.create(teacher["encoder"], **teacher.pop("args", {}))
        encoders.save(made, folder)  # weights that no seed changes
        teacher |= {"encoder": str(folder), "pretrained": True}
    raw["data"]["views_seed"] = 5
    path = str(tmp_path / "kept")
    first = losses(raw, tmp_path / "one", teacher_cache="bf16", teacher_cache_path=path)
    raw["seed"] = 1
    with monkeypatch.context() as patch:
        patch.setattr(TeacherCacheWriter, "_finish", lambda *_: pytest.fail("nothing is missing"))
        assert losses(raw, tmp_path / "two") != first
    raw["data"]["views_seed"] = 6
    with pytest.raises(InputError, match=r"other settings \(seed: 5 then, 6 now\)"):
        losses(raw, tmp_path / "three")


def test_int8_keeps_a_token_within_half_a_step_of_its_largest_value() -> None:
    tokens = Tokens(torch.randn(3, 16), torch.randn(3, 16, 2, 2) * 7)
    kept = pack("t", tokens, "int8")
    back = kept["t.patches"].float() * kept["t.patches_scale"]
    largest = tokens.patches.abs().amax(1, keepdim=True)
    assert ((back - tokens.patches).abs() <= largest / 127 / 2 * 1.001).all()
    assert kept["t.cls"].dtype == torch.int8
    assert kept["t.cls_scale"].shape == (3, 1)


def test_a_damaged_shard_is_named(tmp_path: Path) -> None:
    shard_path(tmp_path, 0).write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"00000000\.safetensors cannot be read .* delete it"):
        CachedTokens(tmp_path, 4, ("t",))([1])


@pytest.fixture
def kept(raw: dict[str, Any], images: Path, tmp_path: Path) -> Path:
    """Outputs of a run, and a copy of the images of its own, with bytes that can be changed."""
    own = tmp_path / "own"
    own.mkdir()
    for file in images.glob("?.png"):
        Image.open(file).save(own / f"{file.stem}.bmp")  # all of one size
    raw["data"]["sources"] = [{"path": str(own)}]
    cache = {"teacher_cache": "bf16", "teacher_cache_path": str(tmp_path / "kept")}
    losses(raw, tmp_path / "first", steps=3, **cache)  # of the twenty views
    return own


def replace(file: Path) -> None:
    """Another image, of the same name and size in bytes."""
    noise = np.random.default_rng(len(file.name)).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    before = file.stat().st_size
    Image.fromarray(noise).save(file)
    assert file.stat().st_size == before


@pytest.mark.parametrize("count", [1, 9])
def test_outputs_of_images_that_were_replaced_are_refused(
    raw: dict[str, Any], kept: Path, tmp_path: Path, count: int
) -> None:
    for file in sorted(kept.iterdir())[1 : 1 + count]:  # of ten; the first one stays
        replace(file)
    with pytest.raises(InputError, match=r"other images \(data\.sources\.0: contents of images"):
        losses(raw, tmp_path / "second")


def test_an_image_that_is_replaced_later_is_refused_when_it_is_trained_on(
    raw: dict[str, Any], kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a set too large to be read beforehand, whose sample does not hold the image."""
    monkeypatch.setattr(recorded, "_READ", 2)
    monkeypatch.setattr(teacher_cache_writer, "_COMPARED", 1)
    shutil.rmtree(tmp_path / "kept")
    losses(raw, tmp_path / "again")
    replace(kept / "3.bmp")
    with pytest.raises(InputError, match=r"3\.bmp is not the image that its cached"):
        losses(raw, tmp_path / "second")


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [
        ("solarize", 0.5, r"augment\.solarize: 0\.2 then, 0\.5 now"),
        ("flip", 0.9, r"augment\.flip: 0\.5 then, 0\.9 now"),
    ],
)
def test_outputs_of_other_augmentation_are_refused(
    raw: dict[str, Any], kept: Path, tmp_path: Path, setting: str, value: float, told: str
) -> None:
    raw["data"]["augment"] = {setting: value}
    with pytest.raises(InputError, match=rf"other settings \({told}\)"):
        losses(raw, tmp_path / "second")


def test_outputs_of_another_resolution_or_of_an_earlier_version_are_refused(
    raw: dict[str, Any], kept: Path, tmp_path: Path
) -> None:
    raw["stages"]["proxy"]["students"]["proxy"]["resolution"] = 96  # teachers see it resized
    with pytest.raises(InputError, match=r"other settings \(resolution: 64 then, 96 now\)"):
        losses(raw, tmp_path / "second")
    raw["stages"]["proxy"]["students"]["proxy"]["resolution"] = 32
    settings = tmp_path / "kept" / "teacher_cache.json"
    before = json.loads(settings.read_text())
    settings.write_text(json.dumps({k: v for k, v in before.items() if k != "data"}))
    with pytest.raises(InputError, match="is damaged: delete"):
        losses(raw, tmp_path / "third")
    settings.rename(settings.with_name("store.json"))  # as earlier versions called it
    with pytest.raises(InputError, match=r"but no teacher_cache\.json"):
        losses(raw, tmp_path / "fourth")


@pytest.mark.parametrize("content", ["{", "[]", '{"data": [], "per_shard": 1}'])
def test_damaged_settings_of_a_cache_are_one_line(
    raw: dict[str, Any], kept: Path, tmp_path: Path, content: str
) -> None:
    (tmp_path / "kept" / "teacher_cache.json").write_text(content)
    with pytest.raises(InputError, match=r"teacher_cache\.json is damaged: delete"):
        losses(raw, tmp_path / "second")


def test_int8_outputs_serve_only_the_statistics_that_they_were_standardized_with(
    raw: dict[str, Any], tmp_path: Path
) -> None:
    path = str(tmp_path / "int8")
    losses(raw, tmp_path / "one", teacher_cache="int8", teacher_cache_path=path, steps=1)
    raw["stages"]["proxy"]["statistics"]["iterations"] = 3
    with pytest.raises(InputError, match=r"other settings \(teachers\.vit\.statistics: "):
        losses(raw, tmp_path / "two")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("views=null", "teacher_cache needs views: set the number"),
        ("teacher_cache=none", "teacher_cache_path has no effect with teacher_cache: none"),
        ("teachers.vit.resolution=[32,64]", "vit.resolution: teacher_cache needs one, not several"),
    ],
)
def test_what_cannot_be_cached_is_refused(recipe_file: Path, setting: str, message: str) -> None:
    given = ("views=1", "teacher_cache=bf16", "teacher_cache_path=elsewhere", setting)
    settings = [f"stages.proxy.{one}" for one in given]
    with pytest.raises(InputError, match=message):
        load_recipe(recipe_file, settings)
