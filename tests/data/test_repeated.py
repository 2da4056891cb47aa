from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from openeupe.data import Batches, BrokenImage, DataConfig, RepeatedViews, SourceConfig, open_source


@pytest.fixture
def config(tmp_path: Path) -> DataConfig:
    """Two sources of five and three images."""
    for source, count in (("a", 5), ("b", 3)):
        (tmp_path / source).mkdir()
        for i in range(count):
            picture = Image.radial_gradient("L").rotate(20 * i).convert("RGB")
            picture.save(tmp_path / source / f"{i}.png")
    sources = [SourceConfig(path=str(tmp_path / s)) for s in ("a", "b")]
    return DataConfig(sources=sources)


def repeated(config: DataConfig, views: int = 2) -> RepeatedViews:
    return RepeatedViews(config, 32, 7, views, [open_source(s) for s in config.sources])


def test_every_view_has_a_number_of_its_own(config: DataConfig) -> None:
    views = repeated(config)
    numbers = [
        views.number(source, index, visit)
        for source, count in ((0, 5), (1, 3))
        for index in range(count)
        for visit in range(2)
    ]
    assert numbers == list(range(len(views))) == list(range(16))
    assert views.number(1, 2, 4) == views.number(1, 2, 0)  # they take turns


def test_batches_show_the_numbered_views(config: DataConfig) -> None:
    views = repeated(config)
    asked: list[list[int]] = []

    def cached(numbers: list[int]) -> dict[str, torch.Tensor]:
        asked.append(numbers)
        return {"number": torch.tensor(numbers), "contents": views.readable(numbers)[1]}

    batches = Batches(config, 4, 32, 0, 0, 12, repeated=views, teacher_cache=cached)
    seen: set[int] = set()
    for batch in batches:
        assert torch.equal(batch.images, views.readable(batch.cached["number"].tolist())[0])
        seen |= set(batch.cached["number"].tolist())
    assert len(seen) > 10
    assert torch.equal(views[3], views.readable([3])[0][0])
    assert not torch.equal(views[2], views[3])  # two views of one image


def test_processes_show_the_same_views(config: DataConfig) -> None:
    views = repeated(config)
    whole = next(iter(Batches(config, 4, 32, 0, 3, 4, repeated=views)))
    shares = [
        next(iter(Batches(config, 4, 32, 0, 3, 4, rank=r, world_size=2, repeated=views)))
        for r in range(2)
    ]
    assert torch.equal(torch.cat([s.images for s in shares]), whole.images)
    assert whole.cached == {}


def test_what_cannot_be_read_is_black(config: DataConfig) -> None:
    views = repeated(config)
    Path(config.sources[0].path, "1.png").write_bytes(b"")
    images, contents = views.readable([0, 2])
    assert images[0].any()
    assert contents[0].any()
    assert not images[1].any()
    assert not contents[1].any()
    with pytest.raises(BrokenImage):
        views[2]
