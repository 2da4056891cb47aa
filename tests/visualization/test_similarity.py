from __future__ import annotations

import pytest
import torch

from openeupe.visualization.similarity import matches, patch_at, similarity


def test_similarity_is_the_cosine_and_one_at_the_patch() -> None:
    patches = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(0))
    values = similarity(patches, patches[:, 1, 2])
    assert float(values[1, 2]) == pytest.approx(1, abs=1e-6)
    expected = torch.cosine_similarity(patches[:, 0, 0], patches[:, 1, 2], dim=0)
    assert float(values[0, 0]) == pytest.approx(float(expected), abs=1e-6)


def test_a_place_names_the_patch_it_lies_in() -> None:
    patches = torch.zeros(1, 4, 8)
    assert patch_at(patches, 0, 0) == (0, 0)
    assert patch_at(patches, 0.5, 0.5) == (2, 4)
    assert patch_at(patches, 1, 1) == (3, 7)


def test_matches_are_mutual_spread_out_and_found_again_when_moved() -> None:
    source = torch.randn(16, 12, 12, generator=torch.Generator().manual_seed(1))
    target = source.roll((2, 3), (1, 2))
    found = matches(source, target, 5)
    assert len(found) == 5
    for match in found:
        assert match.similarity == pytest.approx(1, abs=1e-5)
        moved = [(b - a) * 12 % 12 for a, b in zip(match.source, match.target, strict=True)]
        assert moved == pytest.approx([3, 2])
    for i, one in enumerate(found):
        for other in found[:i]:
            assert max(abs(a - b) for a, b in zip(one.source, other.source, strict=True)) > 1 / 12
