"""Words over photos: the mask covers the ink, and detail alone is no sign of a word."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from openeupe.data import FolderSource
from openeupe.datasets.scenes.lettering import FONTS, WORDS, lettered, quad, warped
from openeupe.datasets.scenes.word_images import WordPhotos, _labels


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> FolderSource:
    """Plain gray photos of several sizes: whatever differs from gray was laid over them."""
    root: Path = tmp_path_factory.mktemp("photos")
    for k, size in enumerate([(160, 120), (120, 160), (200, 200)]):
        Image.new("RGB", size, (128, 128, 128)).save(root / f"{k}.png")
    return FolderSource(root)


def test_an_image_is_a_pure_function_of_photo_seed_and_index(photos: FolderSource) -> None:
    data = WordPhotos(photos, count=9, size=(128, 160))
    expected = [(data.read(i).tobytes(), data.mask(i).tobytes()) for i in range(9)]
    again = pickle.loads(pickle.dumps(WordPhotos(photos, count=20, size=(128, 160))))
    for i in (8, 0, 3, 3, 5, 1):
        assert (again.read(i).tobytes(), again.mask(i).tobytes()) == expected[i]
    other = WordPhotos(photos, count=9, seed=1, size=(128, 160))
    assert other.read(0).tobytes() != expected[0][0]
    assert len({d.fingerprint for d in (data, other, again)}) == 3


def test_threads_that_read_at_once_get_their_own_image(photos: FolderSource) -> None:
    class Raced(WordPhotos):
        """Another thread reads image 1 whenever image 0 was just made."""

        def __setattr__(self, name: str, value: object) -> None:
            super().__setattr__(name, value)
            if name == "_last" and value is not None and value[0] == 0:  # type: ignore[index]
                self.read(1)

    alone, raced = (kind(photos, count=2, size=(128, 160)) for kind in (WordPhotos, Raced))
    assert raced.read(0).tobytes() == alone.read(0).tobytes()


def test_names_sizes_and_classes(photos: FolderSource) -> None:
    own = WordPhotos(photos)
    assert len(own) == 3
    for i in range(3):
        assert own.read(i).size == photos.read(i).size
        assert own.mask(i).shape == photos.read(i).size[::-1]
    cut = WordPhotos(photos, count=50, size=(96, 128))
    assert len({cut.name(i) for i in range(50)}) == 50
    assert cut.read(7).size == (128, 96)
    assert cut.mask(7).shape == (96, 128)
    assert cut.mask(7).dtype == np.uint8
    assert cut.classes == ["background", "text"]
    values = np.unique(np.concatenate([cut.mask(i).ravel() for i in range(10)]))
    assert values.tolist() == [0, 1]
    with pytest.raises(IndexError):
        cut.read(50)
    for settings in ({"count": 0}, {"size": (32, 128)}):
        with pytest.raises(ValueError, match="words need"):
            WordPhotos(photos, **settings)


def test_the_mask_covers_the_letters_ink() -> None:
    """With words alone (drawn by the same functions), ink lies inside the filled quadrangle."""
    rng = np.random.default_rng(0)
    for font in FONTS:
        size = float(rng.uniform(12, 60))
        stencil = lettered(WORDS[rng.integers(len(WORDS))], font, int(2 * size))
        assert min(stencil.size) > 0.5 * size
        corners = quad(2.5 * size, size, rng.uniform(-1, 1), rng.uniform(-0.2, 0.2, (4, 2)))
        corners = corners + 120
        ink = np.asarray(warped(stencil, corners, (240, 240))) > 127
        assert ink.sum() > 0.08 * 2.5 * size * size  # the word is there
        y, x = np.nonzero(ink)
        points = np.stack((x + 0.5, y + 0.5), axis=1)
        inside = np.ones(len(points), bool)
        for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            edge, to = b - a, points - a
            distance = (edge[0] * to[:, 1] - edge[1] * to[:, 0]) / np.linalg.norm(edge)
            inside &= distance > -1
        assert inside.all()


def test_words_patterns_and_empty_photos_all_occur(photos: FolderSource) -> None:
    data = WordPhotos(photos, count=100, size=(128, 128))
    wordless, shares, changed_outside = 0, [], []
    for i in range(len(data)):
        image, mask = np.asarray(data.read(i)).astype(int), data.mask(i) == 1
        changed = np.abs(image - 128).max(axis=-1) > 6
        wordless += not mask.any()
        shares.append(mask.mean())
        changed_outside.append((changed & ~mask).sum() / max(changed.sum(), 1))
        if mask.any():
            assert changed[mask].mean() > 0.02  # there is ink in the region
    assert 0.07 < wordless / len(data) < 0.25
    assert 0.04 < np.mean(shares) < 0.25
    assert 0.3 < np.mean(changed_outside) < 0.8  # patterns and plates, not words, make as much


def test_no_pattern_or_plate_lies_over_a_word() -> None:
    words = 0
    for seed in range(40):
        labels = _labels(np.random.default_rng(seed), 200, 150)
        cover = np.zeros((150, 200), int)
        for label in labels:
            corners = label.corners if label.plate is None else label.plate
            (x0, y0), (x1, y1) = np.floor(corners.min(axis=0)), np.ceil(corners.max(axis=0))
            cover[max(int(y0), 0) : int(y1), max(int(x0), 0) : int(x1)] += 1
            assert label.corners.min() >= 0  # words are never cut off
            assert (label.corners <= (200, 150)).all()
            words += label.is_text
        assert cover.max() <= 1
    assert words > 40
