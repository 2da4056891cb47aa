from __future__ import annotations

import pickle
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from openeupe.data.batches import Batch, Batches
from openeupe.data.config import AugmentConfig, DataConfig, SourceConfig
from openeupe.data.weighted import Weights
from openeupe.errors import InputError

from .conftest import Maker, picture

PLAIN = AugmentConfig(scale=(1, 1), ratio=(1, 1), flip=0, jitter=0, blur=0, solarize=0)


def _config(*paths: Path, weights: tuple[float, ...] = (), **changes: Any) -> DataConfig:
    weights = weights or (1.0,) * len(paths)
    sources = [
        SourceConfig(path=str(path), weight=weight)
        for path, weight in zip(paths, weights, strict=True)
    ]
    return DataConfig(sources=sources, **changes)


def _same(one: list[Batch], two: list[Batch]) -> bool:
    return len(one) == len(two) > 0 and all(
        a.step == b.step
        and a.source == b.source
        and a.broken == b.broken
        and torch.equal(a.images, b.images)
        for a, b in zip(one, two, strict=True)
    )


class Numbered:
    """A source whose image `i` is a flat gray of value `i`."""

    weights: Weights | None = None

    def __init__(self, size: int, offset: int = 0) -> None:
        self.size, self.offset, self.reads = size, offset, 0

    def __len__(self) -> int:
        return self.size

    def read(self, index: int, min_resolution: int | None = None) -> Image.Image:
        self.reads += 1
        return Image.new("RGB", (4, 4), (self.offset + index,) * 3)

    def name(self, index: int) -> str:
        return str(index)


def _values(batches: Batches) -> list[list[int]]:
    return [batch.images[:, 0, 0, 0].tolist() for batch in batches]


@pytest.fixture
def mixed(make_folder: Maker) -> tuple[Path, Path]:
    """Two folders, one with a broken image."""
    one, two = make_folder(9, "one"), make_folder(7, "two", start=100)
    (one / "0004.png").write_bytes(b"")
    return one, two


def test_workers_and_start_do_not_matter(mixed: tuple[Path, Path]) -> None:
    augment = AugmentConfig(blur=0.5)
    runs = [
        list(Batches(_config(*mixed, workers=workers, augment=augment), 6, 24, 5, 0, 8))
        for workers in (0, 2)
    ]
    assert _same(*runs)
    assert [batch.step for batch in runs[0]] == list(range(8))
    assert runs[0][0].images.shape == (6, 3, 24, 24)
    assert runs[0][0].images.dtype == torch.uint8
    assert {batch.source for batch in runs[0]} == {0, 1}
    assert sum(len(batch.broken) for batch in runs[0]) > 0
    late = list(Batches(_config(*mixed, augment=augment), 6, 24, 5, 5, 8))
    assert _same(late, runs[0][5:])
    cached = _config(*mixed, augment=augment, cache_images=True)
    assert _same(list(Batches(cached, 6, 24, 5, 0, 8)), runs[0])


def test_draws_for_the_device_are_each_images_own(make_folder: Maker) -> None:
    """The same whoever loads and however many share a batch; the loader only crops."""
    config = _config(make_folder(9), augment=AugmentConfig(on_device=True))
    (whole,) = Batches(config, 6, 24, 5, 3, 4)
    assert whole.draws is not None
    assert whole.draws.shape == (6, 10)
    parts = [next(iter(Batches(config, 6, 24, 5, 3, 4, rank=r, world_size=2))) for r in (0, 1)]
    assert torch.equal(torch.cat([p.draws for p in parts if p.draws is not None]), whole.draws)
    (plain,) = Batches(_config(make_folder(9, "plain"), augment=PLAIN), 6, 24, 5, 3, 4)
    assert plain.draws is None


def test_a_spawned_worker_would_make_the_same(mixed: tuple[Path, Path]) -> None:
    batches = Batches(_config(*mixed), 4, 16, 5, 0, 2)
    copy = pickle.loads(pickle.dumps(batches._dataset))  # what a spawned process is sent
    assert _same([copy[0], copy[1]], list(batches))


@pytest.mark.parametrize("workers", [0, 2])
def test_the_kind_of_source_does_not_matter(
    make_folder: Maker, tmp_path: Path, workers: int
) -> None:
    datasets = pytest.importorskip("datasets")
    folder = make_folder(6)
    files = sorted(folder.iterdir())
    for shard in (0, 1):
        with tarfile.open(tmp_path / f"{shard}.tar", "w") as archive:
            for file in files[shard * 3 : shard * 3 + 3]:
                archive.add(file, file.name)
    rows = datasets.Dataset.from_dict({"image": [str(file) for file in files]})
    rows.cast_column("image", datasets.Image()).save_to_disk(str(tmp_path / "rows"))
    expected = list(Batches(_config(folder), 4, 16, 0, 0, 4))
    for path in (tmp_path / "{0,1}.tar", tmp_path / "rows"):
        assert _same(list(Batches(_config(path, workers=workers), 4, 16, 0, 0, 4)), expected)


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_share_one_global_batch(mixed: tuple[Path, Path], world: int) -> None:
    config = _config(*mixed)
    whole = list(Batches(config, 8, 16, 1, 0, 5))
    parts = [
        list(Batches(config, 8, 16, 1, 0, 5, rank=rank, world_size=world)) for rank in range(world)
    ]
    for step, batch in enumerate(whole):
        assert len(parts[0][step].images) == 8 // world
        assert torch.equal(torch.cat([part[step].images for part in parts]), batch.images)
        assert [name for part in parts for name in part[step].broken] == batch.broken


def test_seed_stream_and_step_give_other_batches(make_folder: Maker) -> None:
    config = _config(make_folder(20))
    (one, two) = list(Batches(config, 4, 16, 1, 0, 2))
    (seed,) = list(Batches(config, 4, 16, 2, 0, 1))
    (stream,) = list(Batches(config, 4, 16, 1, 0, 1, "statistics"))
    for other in (two, seed, stream):
        assert not torch.equal(one.images, other.images)


def test_an_epoch_has_every_image_once() -> None:
    config = _config(Path("unused"), augment=PLAIN)
    values = _values(Batches(config, 4, 4, 0, 0, 25, sources=[Numbered(10)]))
    flat = [value for batch in values for value in batch]
    epochs = [flat[start : start + 10] for start in range(0, 100, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 8
    (many,) = _values(Batches(config, 25, 4, 0, 0, 1, sources=[Numbered(10)]))
    assert many == flat[:25]  # a batch may be larger than the set


def test_one_tenth_of_the_batches_is_the_small_set() -> None:
    config = _config(Path("a"), Path("b"), weights=(9, 1), augment=PLAIN)
    batches = list(Batches(config, 2, 1, 3, 0, 1500, sources=[Numbered(50), Numbered(50, 100)]))
    for batch in batches:
        assert ((batch.images >= 100) == bool(batch.source)).all()  # each from one source
    small = sum(batch.source for batch in batches)
    assert abs(small - 150) < 5 * (1500 * 0.1 * 0.9) ** 0.5


def test_broken_images_are_replaced_and_named(make_folder: Maker) -> None:
    folder = make_folder(12)
    (folder / "0001.png").write_bytes(b"")
    (folder / "0002.png").write_bytes((folder / "0002.png").read_bytes()[:60])
    (folder / "0003.png").unlink()
    (folder / "0003.jpg").write_text("not an image")
    batches = Batches(_config(folder, augment=PLAIN), 12, 8, 0, 0, 2)
    seen = list(batches)
    assert {Path(name).stem for name in seen[0].broken} == {"0001", "0002", "0003"}
    assert batches.broken.state()["drawn"] == 24
    assert len(batches.broken.names) == 3
    good = Batches(_config(folder, augment=PLAIN), 12, 8, 0, 0, 1, sources=batches.sources)
    views = {good._dataset.augment(picture(n), 0).numpy().tobytes() for n in (0, *range(4, 12))}
    assert all(image.numpy().tobytes() in views for batch in seen for image in batch.images)


@pytest.mark.parametrize("workers", [0, 1])
def test_too_many_broken_images_stop_with_their_names(make_folder: Maker, workers: int) -> None:
    folder = make_folder(40)
    for number in range(15):
        (folder / f"{number:04d}.png").write_bytes(b"")
    batches = Batches(_config(folder, workers=workers), 8, 8, 0, 0, 100)
    with pytest.raises(InputError, match=r"^1[1-8] images of \d+ drawn .*00\d\d\.png") as caught:
        list(batches)
    assert str(caught.value).count(".png") == 10
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("workers", [0, 1])
def test_nothing_readable_is_one_plain_line(make_folder: Maker, workers: int) -> None:
    folder = make_folder(2)
    for file in folder.iterdir():
        file.write_bytes(b"")
    batches = Batches(_config(folder, workers=workers), 4, 8, 0, 0, 3)
    with pytest.raises(InputError, match=r"^none of 20 .*0000\.png") as caught:
        next(iter(batches))
    assert "\n" not in str(caught.value)


def test_the_cache_reads_each_image_once() -> None:
    source = Numbered(10)
    config = _config(Path("unused"), augment=PLAIN, cache_images=True)
    list(Batches(config, 10, 4, 0, 0, 5, sources=[source]))
    assert source.reads == 10


def test_iterating_leaves_the_random_state(make_folder: Maker) -> None:
    folder = make_folder(4)
    before = torch.get_rng_state()
    for workers in (0, 1):
        assert len(list(Batches(_config(folder, workers=workers), 2, 8, 0, 0, 2))) == 2
        assert torch.equal(torch.get_rng_state(), before)


def test_the_threads_of_training_are_given_back(make_folder: Maker) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        list(Batches(_config(make_folder(4)), 2, 8, 0, 0, 2))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_large_jpegs_take_the_short_way(tmp_path: Path) -> None:
    picture(0, 640, 480).save(tmp_path / "a.jpg", quality=95)
    fast, exact = (
        next(iter(Batches(_config(tmp_path, augment=PLAIN, reduced_decode=way), 1, 32, 0, 0, 1)))
        for way in (True, False)
    )
    difference = (fast.images.int() - exact.images.int()).abs().float()
    assert 0 < difference.mean() < 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "batch size 0"),
        ({"first_step": 3, "last_step": 2}, "steps 3 to 2"),
        ({"batch_size": 6, "world_size": 4}, "use a multiple of 4"),
        ({"rank": 2, "world_size": 2}, "rank 2"),
    ],
)
def test_numbers_that_do_not_fit(make_folder: Maker, changes: dict[str, int], message: str) -> None:
    fits = {"batch_size": 4, "resolution": 8, "seed": 0, "first_step": 0, "last_step": 1}
    config = _config(make_folder(2))
    assert len(Batches(config, **fits)) == 1
    with pytest.raises(InputError, match=message):
        Batches(config, **{**fits, **changes})
