from __future__ import annotations

import math

import torch

from openeupe.evaluate.knn import knn_accuracy, knn_predict


def by_hand(train: torch.Tensor, labels: list[int], query: torch.Tensor, k: int) -> int:
    """The protocol in plain Python: cosine, k nearest, votes of exp(similarity / 0.07)."""
    similarities = [float(query @ t / query.norm() / t.norm()) for t in train]
    ranked = sorted(zip(similarities, labels, strict=True), reverse=True)[:k]
    votes: dict[int, float] = {}
    for similarity, y in ranked:
        votes[y] = votes.get(y, 0) + math.exp(similarity / 0.07)
    return max(votes, key=votes.__getitem__)


def test_equals_the_protocol_by_hand_on_a_thousand_queries() -> None:
    g = torch.Generator().manual_seed(0)
    centres = torch.randn(7, 16, generator=g)
    labels = torch.randint(0, 7, (200,), generator=g)
    train = centres[labels] + 1.5 * torch.randn(200, 16, generator=g)
    queries = centres[torch.randint(0, 7, (1000,), generator=g)] + 1.5 * torch.randn(
        1000, 16, generator=g
    )
    expected = [by_hand(train, labels.tolist(), q, 10) for q in queries]
    assert knn_predict(train, labels, queries, k=10, chunk=64).tolist() == expected
    assert len(set(expected)) == 7


def test_length_of_a_feature_does_not_matter() -> None:
    train, labels = torch.eye(3), torch.tensor([0, 1, 2])
    queries = torch.tensor([[100.0, 1.0, 0.0], [0.0, 0.001, 0.0]])
    assert knn_predict(train, labels, queries, k=1).tolist() == [0, 1]


def test_a_near_neighbour_outvotes_many_far_ones() -> None:
    train = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    labels = torch.tensor([0, 1, 1, 1])
    assert knn_predict(train, labels, torch.tensor([[1.0, 0.2]]), k=4).tolist() == [0]
    assert knn_accuracy(train, labels, torch.tensor([[1.0, 0.2]]), torch.tensor([1])) == 0
