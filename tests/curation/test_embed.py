from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from openeupe.curation import CurateConfig, curate
from openeupe.curation.embed import Embeddings, identity
from openeupe.encoders import Encoder
from openeupe.errors import InputError

from .conftest import jpeg, photo

SMALL = CurateConfig(resolution=32, clusters=[3], hash_distance=12)


def test_other_input_constants_are_another_identity(encoder: Encoder) -> None:
    before = identity(encoder, 32)
    mean = encoder.mean.clone()
    encoder.mean.add_(0.1)
    try:
        assert identity(encoder, 32) != before
    finally:
        encoder.mean.copy_(mean)
    assert identity(encoder, 64) != before


def test_vectors_of_another_image_are_not_saved_under_the_scanned_ones_digest(
    image_pool: Path, tmp_path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Embeddings.make

    def replaced_meanwhile(self: Embeddings, *args: Any) -> None:
        (image_pool / "05.jpg").write_bytes(jpeg(photo(77)))
        before(self, *args)

    monkeypatch.setattr(Embeddings, "make", replaced_meanwhile)
    with pytest.raises(InputError, match=r"05\.jpg changed since it was scanned: curate again"):
        curate([image_pool], tmp_path / "a.parquet", encoder, SMALL)


def test_an_encoder_in_training_mode_is_left_as_it_was(
    image_pool: Path, tmp_path: Path, encoder: Encoder
) -> None:
    """Batch norm uses its running statistics and does not change them."""
    curate([image_pool], tmp_path / "a.parquet", encoder, SMALL)
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    encoder.train()
    try:
        about = curate([image_pool], tmp_path / "b.parquet", encoder, SMALL)
        assert encoder.training
    finally:
        encoder.eval()
    after = encoder.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())
    assert (tmp_path / "b.work" / "pool-vectors" / "000000.safetensors").read_bytes() == (
        tmp_path / "a.work" / "pool-vectors" / "000000.safetensors"
    ).read_bytes()
    assert about["encoder"]["identity"] == identity(encoder, 32)


def test_damaged_vectors_are_computed_again(
    image_pool: Path, tmp_path: Path, encoder: Encoder
) -> None:
    """Bits that changed on the disk are no vectors of these images, and may be no numbers."""
    curate([image_pool], tmp_path / "a.parquet", encoder, SMALL)
    file = tmp_path / "a.work" / "pool-vectors" / "000000.safetensors"
    good = file.read_bytes()
    file.write_bytes(good[:-40] + b"\xff" * 40)
    curate([image_pool], tmp_path / "a.parquet", encoder, SMALL)
    assert file.read_bytes() == good
