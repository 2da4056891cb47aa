from __future__ import annotations

import json

import pytest

from openeupe.data.broken import BrokenImages
from openeupe.errors import InputError


def test_a_few_are_always_allowed() -> None:
    broken = BrokenImages(0.0)
    for number in range(10):
        broken.add([f"{number}.jpg"] * 3, 1)
    with pytest.raises(InputError, match=r"11 images of 11 drawn .*0\.jpg; 1\.jpg.*9\.jpg$"):
        broken.add(["10.jpg"], 1)


def test_the_share_counts_distinct_images() -> None:
    broken = BrokenImages(0.1)
    names = [f"{number}.jpg" for number in range(20)]
    broken.add(names, 200)
    broken.add(names, 1)
    with pytest.raises(InputError, match=r"21 images of 202 drawn .*max_broken = 0\.1"):
        broken.add(["more.jpg"], 1)


def test_a_checkpoint_keeps_the_account() -> None:
    broken = BrokenImages(0.5)
    broken.add(["a", "b"], 8)
    other = BrokenImages(0.5)
    other.restore(json.loads(json.dumps(broken.state())))
    assert other.state() == broken.state() == {"drawn": 8, "names": ["a", "b"]}
