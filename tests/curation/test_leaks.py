"""Images that show an evaluation image are dropped, whatever the encoder sees in them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from experiments.planted_pool import CHANGES, change
from openeupe.curation import CurateConfig, curate
from openeupe.curation.summary import summary
from openeupe.encoders import Encoder, create
from openeupe.errors import InputError

from .conftest import jpeg, photo
from .test_pipeline import reasons, rows

# No two images are as near to this encoder: whatever is found, the hash finds.
BLIND = CurateConfig(resolution=32, clusters=[3], similarity=1.0, leak_similarity=1.0)


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """`image_pool` with six photos, and two of `test` changed in every planted way; and `test`."""
    for name, numbers in (("pool", range(6)), ("test", range(6, 8))):
        (tmp_path / name).mkdir()
        for number in numbers:
            (tmp_path / name / f"{number}.jpg").write_bytes(jpeg(photo(number)))
    draw = random.Random(0)
    for kind in CHANGES:
        for number in range(6, 8):
            out = tmp_path / "pool" / f"{kind}-{number}.jpg"
            change(tmp_path / "test" / f"{number}.jpg", out, kind, draw)
    return tmp_path


def test_an_encoder_takes_no_leak_away(planted: Path, encoder: Encoder) -> None:
    out = planted / "out.parquet"
    curate([planted / "pool"], out, None, against=[planted / "test"])
    without = reasons(out)["leak"]
    curate([planted / "pool"], out, encoder, BLIND, against=[planted / "test"])
    assert set(reasons(out)["leak"]) >= set(without)
    for name in ("gray-6.jpg", "gray-7.jpg", "turned-6.jpg", "turned-7.jpg"):
        assert rows(out)[name]["reason"] == "leak"
        assert rows(out)[name]["against"].endswith(f"{name[-5]}.jpg")
    assert len(reasons(out)["kept"]) >= 6


def test_an_encoder_takes_no_copy_away(planted: Path, encoder: Encoder) -> None:
    out = planted / "out.parquet"
    curate([planted / "pool", planted / "test"], out, None)
    without = reasons(out)["near copy"]
    config = BLIND.model_copy(update={"leak_similarity": 0.8})
    curate([planted / "pool", planted / "test"], out, encoder, config)
    assert set(reasons(out)["near copy"]) >= set(without) >= {"gray-6.jpg", "turned-7.jpg"}


@pytest.mark.parametrize("mirrored", [False, True])
def test_turned_copies_are_copies_though_mirrored_ones_may_stay(
    planted: Path, mirrored: bool
) -> None:
    out = planted / "out.parquet"
    curate(
        [planted / "pool"], out, None, CurateConfig(mirrored=mirrored), against=[planted / "test"]
    )
    found = set(reasons(out)["leak"])
    assert {"turned-6.jpg", "turned-7.jpg"} <= found
    assert ("mirrored-6.jpg" in found) == mirrored


def test_unreadable_evaluation_images_are_counted_and_named(planted: Path) -> None:
    out = planted / "out.parquet"
    (planted / "test" / "bad.jpg").write_bytes(jpeg(photo(3))[:700])
    about = curate([planted / "pool"], out, None, against=[planted / "test"])
    assert about["unreadable_against"] == [str(planted / "test" / "bad.jpg")]
    assert f"- {planted / 'test' / 'bad.jpg'}" in summary(out)
    assert "1 image of `against` cannot be read" in summary(out)


def test_unreadable_images_of_a_seed_set_are_counted_and_named(planted: Path) -> None:
    bad = planted / "test" / "bad.jpg"
    bad.write_bytes(jpeg(photo(3))[:700])
    about = curate(
        [planted / "pool"], planted / "o.parquet", create("raw_pixels"), like=[planted / "test"]
    )
    assert about["unreadable_like"] == [str(bad)]
    assert about["unreadable_against"] == []


def test_evaluation_images_none_of_which_can_be_read_are_refused(planted: Path) -> None:
    (planted / "bad").mkdir()
    (planted / "bad" / "a.jpg").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"against .*bad: none of its 1 images can be read"):
        curate([planted / "pool"], planted / "o.parquet", None, against=[planted / "bad"])
