"""Text towers know what words mean, and ConSE what an image is called."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor

from openeupe.encoders import create
from openeupe.encoders.text import MiniLM, OpenClipTower, imagenet_words, text_space
from openeupe.errors import InputError


def test_minilm_knows_which_sentences_mean_the_same() -> None:
    pytest.importorskip("transformers")
    tower = MiniLM()
    texts = ["a cat", "a kitten", "tax law", "the law that says how much of an income is taxed"]
    vectors = tower.encode(texts)
    assert vectors.shape == (4, 384)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(4))
    likeness = vectors @ vectors.T
    assert likeness[0, 1] > 0.7
    assert likeness[2, 3] > 0.5
    assert likeness[:2, 2:].max() < 0.3
    # Padding of a batch changes nothing, nor does upper case.
    torch.testing.assert_close(tower.encode(["A CAT"])[0], vectors[0], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_conse_names_imagenet_photos(imagenet: tuple[Tensor, Tensor]) -> None:
    pytest.importorskip("transformers")
    images, labels = imagenet
    space = text_space("efficientnet_lite0")
    encoder = create("efficientnet_lite0", pretrained=True)
    vectors = space.image_vectors(encoder(images).cls)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(20))
    words = imagenet_words()
    assert len(set(words)) > 990
    candidates = space.tower.encode([words[i] for i in labels.unique().tolist()])
    found = labels.unique()[(vectors @ candidates.T).argmax(dim=1)]
    assert (found == labels).sum() >= 17


def test_only_the_text_side_of_open_clip_is_kept() -> None:
    pytest.importorskip("open_clip")
    tower = OpenClipTower("PE-Core-T-16-384", None)
    vectors = tower.encode(["a dog", "a dog", "two cats"])
    assert vectors.shape == (3, 512)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(vectors[0], vectors[1])
    assert not torch.allclose(vectors[0], vectors[2], atol=1e-3)
    assert not any("visual" in name for name, _ in tower.named_parameters())
    assert not any(p.requires_grad for p in tower.parameters())


def test_a_missing_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match=r"pip install 'openeupe\[language\]'"):
        MiniLM()
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(InputError, match=r"pip install 'openeupe\[clip\]'"):
        OpenClipTower("PE-Core-T-16-384", None)
    with pytest.raises(InputError, match="craft shares no space with text"):
        text_space("craft")
