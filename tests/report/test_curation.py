"""The page of a curation holds what was dropped, in pictures, and loads nothing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from openeupe.curation import CurateConfig, curate
from openeupe.encoders import Encoder, create
from openeupe.report.curation import write_curation

from ..curation.conftest import image_pool, jpeg, photo

__all__ = ["image_pool"]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return create("test_resnet", pretrained=False).eval()


def test_the_page_of_a_balanced_pool(image_pool: Path, tmp_path: Path, encoder: Encoder) -> None:
    test, out = tmp_path / "test", tmp_path / "out.parquet"
    test.mkdir()
    (test / "a.jpg").write_bytes(jpeg(photo(0)))
    config = CurateConfig(resolution=32, clusters=[3], hash_distance=12, size=6)
    about = curate([image_pool], out, encoder, config, against=[test])
    page = write_curation(out).read_text()
    assert f"{about['kept']} of 19 images are kept" in page
    for told in ("Near copies", "mirror.jpg", "as 02.jpg", "Evaluation images", "broken.jpg"):
        assert told in page
    assert re.search(r"cluster \d: \d+ images, \d+ kept", page)
    assert page.count("data:image/jpeg;base64,") >= 6
    assert not re.search(r'(src|href)="(?!data:|#)', page)


def test_the_page_without_clusters_and_with_images_that_went(
    image_pool: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.parquet"
    curate([image_pool], out, None)
    (image_pool / "again.jpg").unlink()
    page = write_curation(out, tmp_path / "page.html").read_text()
    assert "again.jpg" in page
    assert "Clusters" not in page
