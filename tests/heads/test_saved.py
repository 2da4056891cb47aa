from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from openeupe.encoders import Encoder, create
from openeupe.errors import InputError
from openeupe.heads.depth import DepthHead, DepthHeadSettings
from openeupe.heads.regions import RegionHead, RegionHeadSettings
from openeupe.heads.saved import Head, _Description, load_head, save_head
from openeupe.heads.segmentation import SegmentationHead, SegmentationHeadSettings
from openeupe.identity import tensors_identity


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return create("raw_pixels")


HEADS: dict[str, Head] = {
    "segmentation": SegmentationHead(
        SegmentationHeadSettings(width=5, classes=("sky", "été"), dropout=0.1)
    ),
    "depth": DepthHead(DepthHeadSettings(width=5, bins=7, max_depth=80)),
    "regions": RegionHead(RegionHeadSettings(width=5, cells=3)),
}


@pytest.mark.parametrize("kind", HEADS)
def test_a_head_comes_back_as_it_was(kind: str, encoder: Encoder, tmp_path: Path) -> None:
    head = HEADS[kind]
    nn.init.normal_(head.norm.running_mean)  # type: ignore[arg-type]
    folder = save_head(head, tmp_path / "a" / "head", encoder)
    assert sorted(path.name for path in folder.iterdir()) == ["head.json", "head.safetensors"]
    state = torch.get_rng_state()
    found = load_head(folder, encoder)
    assert torch.equal(torch.get_rng_state(), state)
    assert type(found) is type(head)
    assert found.settings == head.settings
    assert not found.training
    tokens = torch.randn(2, 5, 3, 4)
    assert torch.equal(found(tokens), head.eval()(tokens))


def test_a_head_replaces_a_head_and_nothing_else(encoder: Encoder, tmp_path: Path) -> None:
    folder = save_head(HEADS["depth"], tmp_path / "head", encoder)
    (folder / "notes.txt").write_text("mine")
    save_head(HEADS["regions"], folder, encoder)
    assert isinstance(load_head(folder, encoder), RegionHead)
    assert (folder / "notes.txt").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["head"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "photo.jpg").touch()
    with pytest.raises(InputError, match="other holds something else than a saved head"):
        save_head(HEADS["depth"], tmp_path / "other", encoder)


def test_a_cut_off_write_leaves_the_old_head(
    encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_head(HEADS["depth"], tmp_path / "head", encoder)

    def full(*given: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("openeupe.heads.saved.save_file", full)
    with pytest.raises(InputError, match=r"cannot write the head to .*head \(No space left"):
        save_head(HEADS["regions"], folder, encoder)
    assert isinstance(load_head(folder, encoder), DepthHead)
    assert [path.name for path in tmp_path.iterdir()] == ["head"]


def test_another_encoder_is_refused(encoder: Encoder, tmp_path: Path) -> None:
    folder = save_head(HEADS["depth"], tmp_path / "head", encoder)
    other = create("raw_pixels")
    other.set_constants((0.5,) * 3, (0.1,) * 3)
    with pytest.raises(InputError, match=r"fitted on another encoder \(raw_pixels\)"):
        load_head(folder, other)


def change(folder: Path, **fields: object) -> None:
    path = folder / "head.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_damage_is_named(encoder: Encoder, tmp_path: Path) -> None:
    settings = {"kind": "depth", "width": 5, "bins": 7}
    for fields, message in (
        ({"openeupe_head": 2}, r"head.json has format 2, this version reads 1"),
        ({"settings": {**settings, "width": -1}}, r"head.json is damaged .*width"),
        ({"settings": {**settings, "kind": "boxes"}}, r"head.json is damaged .*settings"),
        ({"settings": {**settings, "max_depth": 3.0}}, r"head.safetensors does not belong to"),
        ({"encoder": "clip"}, r"head.safetensors does not belong to"),
        ({"digest": 3}, r"head.json is damaged .*digest"),
    ):
        folder = save_head(HEADS["depth"], tmp_path / "head", encoder)
        change(folder, **fields)
        with pytest.raises(InputError, match=message):
            load_head(folder, encoder)
    folder = save_head(HEADS["depth"], tmp_path / "head", encoder)
    weights = load_file(folder / "head.safetensors")
    weights["linear.bias"][0] += 1e-6
    save_file(weights, folder / "head.safetensors")
    with pytest.raises(InputError, match=r"head.safetensors does not belong to .*head.json"):
        load_head(folder, encoder)
    (folder / "head.safetensors").write_bytes(b"no")
    with pytest.raises(InputError, match=r"cannot read weights from .*head.safetensors"):
        load_head(folder, encoder)
    (folder / "head.json").write_text("{")
    with pytest.raises(InputError, match=r"head.json is damaged"):
        load_head(folder, encoder)
    with pytest.raises(InputError, match=r"none.head.json cannot be read"):
        load_head(tmp_path / "none", encoder)


def test_weights_of_other_sizes_are_refused_before_any_memory_is_taken(
    encoder: Encoder, tmp_path: Path
) -> None:
    """A file that states gigabytes, with a digest that fits."""
    folder = save_head(HEADS["depth"], tmp_path / "head", encoder)
    change(folder, settings={"kind": "depth", "width": 65_536, "bins": 65_536})
    described = _Description.model_validate(json.loads((folder / "head.json").read_text()))
    weights = load_file(folder / "head.safetensors")
    change(folder, digest=described.digest_with(tensors_identity(weights)))
    with pytest.raises(InputError, match=r"head.safetensors: .*shape \[7, 5, 1, 1\]"):
        load_head(folder, encoder)
