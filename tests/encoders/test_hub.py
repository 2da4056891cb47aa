"""Encoders from a hub: fetched, verified, and from the cache without a network."""

from __future__ import annotations

from pathlib import Path

import pytest

import openeupe
from openeupe.encoders import timm_folder
from openeupe.errors import InputError

from .networks import made, same


def test_a_hub_name_is_fetched_verified_and_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import hashlib
    from types import SimpleNamespace

    import huggingface_hub

    encoder = made("convnext_atto")
    timm_folder.save(encoder, tmp_path, "mit")
    (tmp_path / "code.py").write_text("raise SystemExit")
    digest = hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest()
    asked: list[str] = []

    def info(self: object, name: str, **_: object) -> SimpleNamespace:
        files = [SimpleNamespace(rfilename=p.name, lfs=None) for p in tmp_path.iterdir()]
        for file in files:
            if file.rfilename == "model.safetensors":
                file.lfs = SimpleNamespace(sha256=digest)
        return SimpleNamespace(siblings=files, sha="0" * 40)

    def one_file(name: str, file: str, revision: str) -> str:
        asked.append(file)
        return str(tmp_path / file)

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", info)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", one_file)
    assert same(encoder, openeupe.load("hf-hub:timm/convnext_atto.ours"))
    assert set(asked) == {"config.json", "model.safetensors"}
    digest = "0" * 64
    with pytest.raises(InputError, match="is not the file that the hub names"):
        openeupe.load("hf-hub:timm/convnext_atto.ours")


def test_the_cache_of_the_hub_client_stands_in_for_the_network_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub
    from huggingface_hub.errors import RevisionNotFoundError

    from openeupe.encoders.hub import download

    trouble: list[Exception] = [ConnectionError("no network")]

    def info(*_: object, **__: object) -> None:
        raise trouble[0]

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", info)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(tmp_path))
    with pytest.raises(InputError, match=r"cannot be downloaded \(no network\)"):
        download("hf-hub:facebook/EUPE-ViT-T")  # something else of it is in the cache
    (tmp_path / "EUPE-ViT-T.pt").touch()
    assert download("hf-hub:facebook/EUPE-ViT-T") == tmp_path / "EUPE-ViT-T.pt"
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).touch()
    assert download("hf-hub:timm/net") == tmp_path
    trouble[0] = RevisionNotFoundError.__new__(RevisionNotFoundError, "no such revision")
    with pytest.raises(InputError, match=r"timm/net@v9 cannot be downloaded"):
        download("hf-hub:timm/net@v9")
