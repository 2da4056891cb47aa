"""Settings of a curation that would have no effect are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from openeupe.cli import app
from openeupe.curation import CurateConfig
from openeupe.curation.pipeline import _NEED_ENCODER
from openeupe.errors import InputError

from ..conftest import call


def test_settings_are_checked_like_those_of_a_recipe(image_pool: Path, tmp_path: Path) -> None:
    asked: list[object] = [
        "curate",
        image_pool,
        "--out",
        tmp_path / "out.parquet",
        "--encoder",
        "none",
    ]
    for setting, message in {
        "sise=3": r"curate: sise: unknown key, did you mean size\?",
        "min_resolution=0": r"min_resolution: Input should be greater than or equal to 1 \(got 0\)",
        "shards=big": r"curate: shards: 'big': write it as 500MB or 1GB",
        "clusters=8": "clusters has no effect without an encoder",
    }.items():
        with pytest.raises(InputError, match=message):
            call(*asked, setting)
    with pytest.raises(InputError, match="name a folder of images, or tar shards"):
        call("curate", "size=3", "--out", tmp_path / "out.parquet")
    assert "13 kept" in call(*asked, "mirrored=false", f"work={tmp_path / 'elsewhere'}")
    assert (tmp_path / "elsewhere").is_dir()


def test_a_folder_may_look_like_a_setting(
    image_pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    image_pool.rename("size=3")
    assert "19 images" in call("curate", "size=3", "--out", "out.parquet", "--encoder", "none")


def test_a_device_without_an_encoder_is_refused(image_pool: Path, tmp_path: Path) -> None:
    asked = ["curate", str(image_pool), "--out", str(tmp_path / "out.parquet"), "--encoder", "none"]
    result = CliRunner().invoke(app, [*asked, "--device", "cpu"])
    assert isinstance(result.exception, InputError)
    assert "device has no effect without an encoder" in str(result.exception)


def test_every_setting_without_effect_is_refused() -> None:
    """Those that are left change what is found without an encoder, or how fast."""
    read = {
        "min_resolution",
        "max_aspect",
        "hash_distance",
        "agreement",
        "leak_agreement",
        "mirrored",
    }
    assert set(CurateConfig.model_fields) == {*_NEED_ENCODER, *read, "workers", "work", "shards"}
