"""Dense benchmarks on rendered scenes."""

from __future__ import annotations

from pathlib import Path

from openeupe.datasets.dense import DenseScenes


def test_scenes_need_no_files() -> None:
    train, test = DenseScenes(count=3, test_count=2, resolution=64).open(Path("/nowhere"))
    assert (len(train), len(test)) == (3, 2)
    assert train.classes[0] == "background"
    assert train.mask(0).shape == (64, 64)
    assert 0.5 <= train.depth(2).min() < train.depth(2).max() <= 10
