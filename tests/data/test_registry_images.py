from __future__ import annotations

from pathlib import Path

import pytest

from openeupe.data import registry_images as photos
from openeupe.registry import RegistryFile


def test_a_photo_that_is_not_the_packages_is_copied_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cut-off or replaced copy, or one of another release of the package."""
    monkeypatch.setenv("OPENEUPE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "a.png").write_bytes(b"the photo")
    monkeypatch.setattr(photos, "fetch_all", lambda _: [tmp_path / "a.png"])
    monkeypatch.setattr(photos, "REGISTRY_IMAGES", list[RegistryFile]())
    copy = photos.registry_images() / "a.png"
    assert copy.read_bytes() == b"the photo"
    copy.write_bytes(b"another")
    assert (photos.registry_images() / "a.png").read_bytes() == b"the photo"
