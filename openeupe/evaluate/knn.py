"""k-nearest-neighbour classification on class tokens (paper appendix C.1)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def knn_predict(
    train: Tensor,
    labels: Tensor,
    queries: Tensor,
    k: int = 10,
    temperature: float = 0.07,
    chunk: int = 4096,
) -> Tensor:
    """Predicted class `[Q]` (int64) of each query.

    Features are L2-normalized; each of the `k` nearest neighbours by cosine votes with weight
    `exp(similarity / temperature)`, the rule of the released evaluation code. Exact search,
    `chunk` queries at a time, on the features' device.

    Args:
        train: `[N, D]` class tokens of the labelled images.
        labels: `[N]` int64 classes, from 0.
        queries: `[Q, D]` class tokens.
    """
    train = F.normalize(train.float(), dim=1)
    classes = int(labels.max()) + 1
    k = min(k, len(train))
    predictions = []
    for part in F.normalize(queries.float(), dim=1).split(chunk):
        similarity, nearest = (part @ train.T).topk(k, dim=1)
        # The largest similarity is 1, so that this cannot overflow.
        weights = ((similarity - 1) / temperature).exp()
        votes = weights.new_zeros(len(part), classes).scatter_add_(1, labels[nearest], weights)
        predictions.append(votes.argmax(dim=1))
    return torch.cat(predictions)


def knn_accuracy(
    train: Tensor, labels: Tensor, queries: Tensor, query_labels: Tensor, k: int = 10
) -> float:
    """Share of queries whose class `knn_predict` gets right, in [0, 1]."""
    return float((knn_predict(train, labels, queries, k) == query_labels).float().mean())
