"""Settings of a curation that would have no effect are refused."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from openeupe.cli import app
from openeupe.curation import CurateConfig
from openeupe.curation.pipeline import _NEED_ENCODER
from openeupe.errors import InputError


def test_a_device_without_an_encoder_is_refused(heap: Path, tmp_path: Path) -> None:
    asked = ["curate", str(heap), "--out", str(tmp_path / "out.parquet"), "--encoder", "none"]
    result = CliRunner().invoke(app, [*asked, "--device", "cpu"])
    assert isinstance(result.exception, InputError)
    assert "--device has no effect without --encoder" in str(result.exception)


def test_every_setting_without_effect_is_refused() -> None:
    """Those that are left change what is found without an encoder, or how fast."""
    read = {"min_side", "max_aspect", "hash_distance", "agreement", "leak_agreement", "mirrored"}
    assert set(CurateConfig.model_fields) == {*_NEED_ENCODER, *read, "workers"}
