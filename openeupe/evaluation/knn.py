"""k-nearest-neighbour classification on class tokens (paper appendix C.1)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from openeupe.data import View
from openeupe.datasets.classification import ClassData
from openeupe.datasets.interfaces import LabelledImages
from openeupe.encoders import Encoder
from openeupe.evaluation.benchmark import Benchmark, Domain, EvaluatedEncoder
from openeupe.evaluation.features import Features, fitting_resolution
from openeupe.evaluation.measure import Outcome, mean_measure

Vote = Literal["weighted", "majority"]
Metric = Literal["cosine", "l2"]
_BLOCK = 16384  # rows of the database at a time: with 4096 queries 256 MiB of similarities


class Knn(Benchmark):
    """kNN accuracy of class tokens.

    By default the released evaluation code's rule: class tokens L2-normalized, neighbours by
    cosine, votes of exp(similarity / 0.07); short side 256 bicubic, centre 224. The paper's text
    uses a majority of the L2 nearest instead: `vote: majority`, `metric: l2`. Where fewer training
    images than `k` exist, all of them vote.
    """

    kind: Literal["knn"] = "knn"
    protocol: str = "knn/eupe-v1"
    domain: Domain = "image"
    data: ClassData
    k: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (10, 20, 100, 200), min_length=1, description="The first one is in tables"
    )
    temperature: float = Field(0.07, gt=0)
    vote: Vote = "weighted"
    metric: Metric = "cosine"
    features: Literal["cls", "mean", "cls+mean"] = Field(
        "cls", description="Class token, mean patch token, or both (each normalized, then joined)"
    )
    short: int = Field(256, ge=1, description="Pixels of the short side after resizing")
    crop: int = Field(224, ge=1, description="Pixels of the centre crop")

    @model_validator(mode="after")
    def _used(self) -> Self:
        if self.vote == "majority" and self.temperature != 0.07:
            raise ValueError("a majority has no temperature: leave temperature out, or vote")
        if self.data.names is not None:
            raise ValueError("kNN does not read data.names: leave it out")
        return self

    def open(self, root: Path) -> tuple[LabelledImages, LabelledImages]:
        """(train, test) of `data`."""
        return self.data.open(root)

    def run(
        self, data: tuple[LabelledImages, LabelledImages], evaluated: EvaluatedEncoder
    ) -> dict[str, Outcome]:
        """Every k on the same neighbours, searched on the encoder's device."""
        train, test = data
        view = crop_view(evaluated.encoder, self.crop, self.short)
        labels, truth = class_labels(train), class_labels(test)
        predictions = knn_predictions(
            self._features(evaluated.features, train, view),
            labels,
            self._features(evaluated.features, test, view).to(evaluated.device),
            self.k,
            temperature=self.temperature,
            vote=self.vote,
            metric=self.metric,
        )
        names = [test.name(i) for i in range(len(test))]
        commonest = truth == labels.mode().values
        measures = {
            f"top1@{k}": mean_measure(names, (found == truth).numpy(), scale=100, unit="%")
            for k, found in predictions.items()
        }
        return {
            "": Outcome(
                f"top1@{self.k[0]}",
                measures,
                baselines={"majority class": 100 * commonest.double().mean().item()},
                details={
                    "classes": int(labels.max()) + 1,
                    "train_images": len(train),
                    "test_images": len(test),
                    "resolution": view.height,
                },
            )
        }

    def _features(self, features: Features, images: LabelledImages, view: View) -> Tensor:
        if self.features == "cls":
            return features.cls(images, view)
        means = features.means(images, view)
        if self.features == "mean":
            return means
        return torch.cat([F.normalize(features.cls(images, view)), F.normalize(means)], dim=1)


def crop_view(encoder: Encoder, crop: int, short: int) -> View:
    """The centre `crop` of a short side `short`. Both are scaled to fit the patches."""
    resolution = fitting_resolution(encoder, crop)
    return View(resolution, resolution, "crop", short=round(short * resolution / crop))


def class_labels(images: LabelledImages) -> Tensor:
    """`[N]` int64 class numbers."""
    return torch.tensor([images.label(i) for i in range(len(images))])


def knn_predictions(
    train: Tensor,
    labels: Tensor,
    queries: Tensor,
    ks: Sequence[int],
    *,
    temperature: float = 0.07,
    vote: Vote = "weighted",
    metric: Metric = "cosine",
    chunk: int = 4096,
) -> dict[int, Tensor]:
    """Predicted class `[Q]` (int64, on the CPU) of each query for each `k` of `ks`.

    The `max(ks)` nearest are searched once. A weighted vote counts exp(similarity / temperature),
    where the similarity is the cosine, or with l2 minus half the squared distance (for vectors of
    length 1 the same but for a constant). A tie of a majority vote goes to the class of the
    nearest neighbour among the tied; in a weighted vote, to the lowest class number.

    Args:
        train: `[N, D]` features of the labelled images; with l2 they are taken as they are.
        labels: `[N]` int64 classes, from 0.
        queries: `[Q, D]` features; the search runs on their device.
        chunk: queries at a time.
    """
    similarity, nearest = neighbours(train, queries, max(ks), metric=metric, chunk=chunk)
    voters = labels.to(nearest.device)[nearest]
    classes = int(labels.max()) + 1
    weights = ((similarity - similarity[:, :1]) / temperature).exp()  # of the nearest: 1
    rank = torch.arange(voters.shape[1], device=voters.device)
    if vote == "majority":
        weights = torch.ones_like(weights)
    predictions = {}
    for k in ks:
        found = []
        for start in range(0, len(voters), chunk):
            part = slice(start, start + chunk)
            who, weight = voters[part, :k], weights[part, :k]
            votes = weight.new_zeros(len(who), classes).scatter_add_(1, who, weight)
            if vote == "majority":
                first = (1 / (2.0 + rank[:k])).expand(who.shape)  # less than any vote
                votes += torch.zeros_like(votes).scatter_reduce_(1, who, first, "amax")
            found.append(votes.argmax(dim=1))
        predictions[k] = torch.cat(found).cpu()
    return predictions


def neighbours(
    train: Tensor,
    queries: Tensor,
    k: int,
    *,
    metric: Metric = "cosine",
    chunk: int = 4096,
) -> tuple[Tensor, Tensor]:
    """Similarities and row numbers `[Q, min(k, N)]` of each query's nearest rows of `train`.

    Exact. The database goes through the queries' device in blocks, and only the best so far are
    saved, so that 1.28 million images fit. Nearest first; of equals the lower row.
    """
    k, device = min(k, len(train)), queries.device
    centre = train.mean(dim=0, dtype=torch.float32)  # distances stay, their rounding shrinks

    def prepared(rows: Tensor) -> Tensor:
        rows = rows.to(device).float()
        return F.normalize(rows, dim=1) if metric == "cosine" else rows - centre.to(device)

    parts = [prepared(part) for part in queries.split(chunk)]
    best: list[tuple[Tensor, Tensor]] = []
    for start in range(0, len(train), _BLOCK):
        block = prepared(train[start : start + _BLOCK])
        length = block.square().sum(dim=1) / 2
        for number, part in enumerate(parts):
            score = part @ block.T
            if metric == "l2":
                score -= length
            values, rows = score.topk(min(k, len(block)), dim=1)
            rows += start
            if start:
                values, rows = (
                    torch.cat(both, dim=1)
                    for both in zip(best[number], (values, rows), strict=True)
                )
                values, which = values.topk(min(k, values.shape[1]), dim=1)
                best[number] = values, rows.gather(1, which)
            else:
                best.append((values, rows))
    values, rows = (torch.cat(kind) for kind in zip(*best, strict=True))
    rows, order = rows.sort(dim=1)
    values, order = values.gather(1, order).sort(dim=1, descending=True, stable=True)
    if metric == "l2":
        values -= torch.cat([part.square().sum(dim=1, keepdim=True) / 2 for part in parts])
    return values, rows.gather(1, order)
