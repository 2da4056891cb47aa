"""Saving and loading: bit for bit, all at once, and clear about what does not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from openeupe.encoders import create, load, save
from openeupe.errors import InputError

from ..recorded import Disk

ENCODERS: list[tuple[str, dict[str, Any]]] = [
    ("eupe_vit_t", {"depth": 1}),
    ("eupe_proxy", {"width": 96, "depth": 1, "heads": 3}),
    ("pe_core_g", {"depth": 1, "embed_dim": 96, "num_heads": 8, "class_token": "pooled"}),
    ("efficientnet_lite0", {"patches": "16"}),
    ("convnext_atto", {}),
]


@pytest.mark.parametrize(("name", "args"), ENCODERS)
def test_round_trip_is_bit_identical(tmp_path: Path, name: str, args: dict[str, Any]) -> None:
    encoder = create(name, **args)
    encoder.train()(torch.rand(2, 3, 4 * encoder.patch_size, 4 * encoder.patch_size))  # BN state
    loaded = load(save(encoder, tmp_path / "deep" / "encoder"))
    assert not loaded.training
    assert (loaded.name, loaded.args) == (encoder.name, encoder.args)
    assert (loaded.resolution, loaded.patch_size) == (encoder.resolution, encoder.patch_size)
    images = torch.rand(1, 3, 4 * encoder.patch_size, 2 * encoder.patch_size)
    for ours, theirs in zip(encoder.eval()(images), loaded(images), strict=True):
        assert torch.equal(ours, theirs)


def test_saving_replaces_an_encoder_and_leaves_nothing_behind(tmp_path: Path) -> None:
    folder = save(create("eupe_vit_t", depth=1), tmp_path / "encoder")
    save(create("eupe_vit_t", depth=2), str(folder))
    assert load(folder).args == {"depth": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["encoder"]
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_saving_again_keeps_what_is_not_ours(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    save(create("raw_pixels"), folder)
    for name in ("evaluations/mini/results.json", "notes.txt", "README.md", "heads.safetensors"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("mine")
    save(create("test_vit"), folder)
    assert load(folder).name == "test_vit"
    for name in ("evaluations/mini/results.json", "notes.txt", "README.md"):
        assert (folder / name).read_text() == "mine"
    assert not (folder / "heads.safetensors").exists()  # of the encoder before
    assert {p.name for p in tmp_path.iterdir()} == {"mine"}


@pytest.mark.parametrize("config", ["{}", '{"model_type": "dinov3_vit"}', '{"format": "pdf"}'])
def test_a_folder_of_other_software_is_never_replaced(tmp_path: Path, config: str) -> None:
    for name in ("config.json", "model.safetensors", "thesis.tex"):
        (tmp_path / name).write_text(config)
    with pytest.raises(InputError, match="something else"):
        save(create("raw_pixels"), tmp_path)
    assert {p.read_text() for p in tmp_path.iterdir()} == {config}
    assert len(list(tmp_path.iterdir())) == 3


def test_a_cut_off_replacement_says_so_and_is_completed_by_saving_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "mine"
    save(create("raw_pixels"), folder)
    replace, left = Path.replace, [2]

    def cut(self: Path, target: Path) -> Path:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", cut)
        with pytest.raises(KeyboardInterrupt):
            save(create("test_vit"), folder)
    with pytest.raises(InputError, match=r"half written.*save the encoder again"):
        load(folder)
    save(create("test_vit"), folder)
    assert load(folder).name == "test_vit"


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="reads /proc")
def test_an_encoder_is_on_the_disk_when_save_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(tmp_path)
    disk.watch(monkeypatch)
    for name in ("raw_pixels", "test_vit"):  # a new folder, and one that is replaced
        disk.events.clear()
        save(create(name), tmp_path / "mine")
        for file in ("config.json", "model.safetensors"):
            disk.settled(tmp_path / "mine" / file)


def test_saving_does_not_replace_other_things(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="holds something else than an encoder"):
        save(create("eupe_vit_t", depth=1), tmp_path)
    assert (tmp_path / "thesis.tex").exists()


def test_a_failed_save_leaves_the_old_encoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save(create("eupe_vit_t", depth=1), tmp_path / "encoder")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("openeupe.encoders.openeupe_folder.save_file", full)
    with pytest.raises(InputError, match="No space left"):
        save(create("eupe_vit_t", depth=2), folder)
    assert load(folder).args == {"depth": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["encoder"]


def test_constants_of_the_folder_hold(tmp_path: Path) -> None:
    folder = save(create("eupe_vit_t", depth=1), tmp_path / "encoder")
    _change(folder, mean=[0.1, 0.2, 0.3], resolution=384)
    loaded = load(folder)
    assert loaded.resolution == 384
    torch.testing.assert_close(loaded.mean.flatten(), torch.tensor([0.1, 0.2, 0.3]))


def test_settings_that_are_no_json_cannot_be_saved(tmp_path: Path) -> None:
    encoder = create("eupe_vit_t", depth=1)
    encoder.args["norm_layer"] = torch.nn.LayerNorm
    with pytest.raises(InputError, match="not all plain values"):
        save(encoder, tmp_path / "encoder")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format 2, this version reads 1"),
        ({"cls_dim": 5}, "cls_dim is 5, but eupe_vit_t has 192"),
        ({"name": 3}, "name is missing or wrong"),
        ({"mean": [1, 2]}, "mean is missing or wrong"),
        ({"args": {"depth": 1, "pretrained": True}}, "pretrained cannot be set"),
        ({"args": {"depth": 1, "checkpoint_path": "x"}}, "checkpoint_path cannot be set"),
        ({"args": {"depth": 2}}, "lacks .* tensors, such as trunk.blocks.1"),
        ({"args": {"depth": 1, "mlp_ratio": 2.0}}, "the file belongs to another encoder"),
        ({"name": "eupe_vit_q"}, "no encoder is called"),
    ],
)
def test_a_changed_config_is_an_input_error(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    folder = save(create("eupe_vit_t", depth=1), tmp_path / "encoder")
    _change(folder, **change)
    with pytest.raises(InputError, match=message) as caught:
        load(folder)
    assert "\n" not in str(caught.value)


def test_damaged_files_are_an_input_error(tmp_path: Path) -> None:
    folder = save(create("eupe_vit_t", depth=1), tmp_path / "encoder")
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    save_file({**load_file(weights), "extra": torch.zeros(1)}, weights)
    with pytest.raises(InputError, match="1 foreign tensors, such as extra"):
        load(folder)
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="is damaged"):
        load(folder)
    weights.unlink()
    with pytest.raises(InputError, match=r"model\.safetensors is missing"):
        load(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"config\.json is damaged"):
        load(folder)
    (folder / "config.json").write_text('{"_name": "bert"}')
    with pytest.raises(InputError, match="does not describe an OpenEUPE encoder"):
        load(folder)


def test_what_is_neither_folder_nor_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no encoder folder"):
        load(tmp_path / "nothing")
    with pytest.raises(InputError, match=r"config\.json cannot be read"):
        load(tmp_path)
    with pytest.raises(InputError, match="no encoder is called 'nothing'"):
        load("nothing")


def test_a_name_loads_the_pretrained_encoder() -> None:
    encoder = load("efficientnet_lite0")
    fresh = create("efficientnet_lite0", pretrained=True)
    assert not encoder.training
    for key, value in fresh.state_dict().items():
        assert torch.equal(value, encoder.state_dict()[key])


def _change(folder: Path, **fields: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
