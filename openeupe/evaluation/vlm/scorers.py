"""Metrics of the six vision-language benchmarks from recorded answers.

A benchmark's function takes records

    {"image": name of the image, "response": what the model answered, ...ground truth...}

and gives an `Outcome` whose samples are images, so that intervals respect that questions about one
image are correlated.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from openeupe.errors import InputError
from openeupe.evaluation.measure import Array, Measure, Outcome, Reduction, joined, mean_measure
from openeupe.evaluation.vlm.rules import (
    gqa_score,
    mme_reply,
    pope_is_yes,
    realworldqa_score,
    scienceqa_choice,
    textvqa_score,
)

Record = Mapping[str, Any]


def textvqa(records: Sequence[Record]) -> Outcome:
    """TextVQA; records carry `answers` (ten) and `ocr_tokens` (whether the prompt listed them).

    LLaVA-1.5 lists the data set's OCR tokens in the prompt, and much of its score rests on them
    (RADIO: 52 with, 32 without): the headline is with them if they were listed; both are saved.
    """
    measures: dict[str, Measure] = {}
    scores = [textvqa_score(r["response"], r["answers"]) for r in records]
    for listed, name in ((True, "accuracy with OCR tokens"), (False, "accuracy")):
        rows = [i for i, r in enumerate(records) if bool(r.get("ocr_tokens")) is listed]
        if rows:
            measures[name] = _percent([records[i] for i in rows], [scores[i] for i in rows])
    return _outcome(next(iter(measures)), measures, records, scores)


def scienceqa(records: Sequence[Record]) -> Outcome:
    """ScienceQA; records carry `answer` (a letter), `choices` (their number) and `has_image`.

    The headline is over questions with an image (LLaVA's SQA-I); "accuracy-full" is over all.
    """
    given = [scienceqa_choice(r["response"], "ABCDE"[: r["choices"]]) for r in records]
    scores = [float(choice == r["answer"]) for choice, r in zip(given, records, strict=True)]
    measures = {"accuracy-full": _percent(records, scores)}
    seen = [i for i, r in enumerate(records) if r["has_image"]]
    if seen:
        measures["accuracy"] = _percent([records[i] for i in seen], [scores[i] for i in seen])
    headline = "accuracy" if seen else "accuracy-full"
    counted = [records[i] for i in seen] or records
    baselines = {"chance": float(100 * np.mean([1 / r["choices"] for r in counted]))}
    unread = sum(choice is None for choice in given)
    return _outcome(headline, measures, records, scores, baselines, {"unparsable": unread})


def realworldqa(records: Sequence[Record]) -> Outcome:
    """RealWorldQA; records carry `answer`."""
    return _exact(records, realworldqa_score)


def gqa(records: Sequence[Record]) -> Outcome:
    """GQA; records carry `answer`."""
    return _exact(records, gqa_score)


def pope(records: Sequence[Record]) -> Outcome:
    """POPE; records carry `answer` ("yes" or "no") and `split` (random, popular, adversarial).

    The headline is the mean of the splits' F1, as LLaVA-1.5's is; "f1-pooled" is lmms-eval's, of
    all questions together. The yes-ratio is that of the model's answers.
    """
    splits = sorted({r["split"] for r in records})
    images = [r["image"] for r in records]
    predicted = np.array([pope_is_yes(r["response"]) for r in records], dtype=float)
    truth = np.array([r["answer"].strip().lower() == "yes" for r in records], dtype=float)
    # True positives, false positives, false negatives of each question.
    counts = np.stack([predicted * truth, predicted * (1 - truth), (1 - predicted) * truth], axis=1)
    member = np.array([[r["split"] == split for split in splits] for r in records], dtype=float)
    by_split = (counts[:, :, None] * member[:, None, :]).reshape(len(records), -1)
    right = (predicted == truth).astype(float)
    always = np.stack([truth, 1 - truth, 0 * truth], axis=1)
    always_by_split = (always[:, :, None] * member[:, None, :]).reshape(len(records), -1)

    def measure(reduction: Reduction, sums: Array) -> Measure:
        return joined(reduction, images, sums[None], scale=100, unit="%")

    measures = {
        "f1": measure("class_f1", by_split),
        "f1-pooled": measure("f1", counts),
        **{f"f1-{s}": measure("f1", counts * member[:, [k]]) for k, s in enumerate(splits)},
        "accuracy": _percent(records, right.tolist()),
        "precision": measure("mean", np.stack([predicted * truth, predicted], axis=1)),
        "recall": measure("mean", np.stack([predicted * truth, truth], axis=1)),
        "yes-ratio": _percent(records, predicted.tolist()),
    }
    baselines = {"always yes": measure("class_f1", always_by_split).value}
    return _outcome("f1", measures, records, right.tolist(), baselines, {"splits": splits})


MME_PERCEPTION = (
    "existence",
    "count",
    "position",
    "color",
    "posters",
    "celebrity",
    "scene",
    "landmark",
    "artwork",
    "OCR",
)


def mme(records: Sequence[Record]) -> Outcome:
    """MME perception. Records carry `answer` and `category`; two of each image and category.

    An image scores 100 times the share of its two questions answered right, and 100 more if both
    are; a subtask is the mean over its images (at most 200), the score their sum (at most 2000).
    Cognition subtasks are passed over.
    """
    kept = [r for r in records if r["category"] in MME_PERCEPTION]
    subtasks = [name for name in MME_PERCEPTION if any(r["category"] == name for r in kept)]
    right = [float(mme_reply(r["response"]) == mme_reply(r["answer"])) for r in kept]
    yes = [float(mme_reply(r["answer"]) == "yes") for r in kept]
    samples, sums = _mme_sums(kept, right, subtasks)
    _, always = _mme_sums(kept, yes, subtasks)
    measures = {"perception": joined("class_sum", samples, sums[None])}
    for k, name in enumerate(subtasks):
        pair = sums[None, :, [k, k + len(subtasks)]]
        measures[name] = joined("class_sum", samples, pair)
    baselines = {"always yes": joined("class_sum", samples, always[None]).value}
    return _outcome("perception", measures, kept, right, baselines, {"subtasks": subtasks})


def _mme_sums(
    records: Sequence[Record], right: Sequence[float], subtasks: list[str]
) -> tuple[list[str], Array]:
    """Image names, and `[images, 2 * subtasks]`: scores, then counts, of each subtask."""
    pairs: dict[tuple[str, str], list[float]] = {}
    for record, hit in zip(records, right, strict=True):
        pairs.setdefault((record["category"], record["image"]), []).append(hit)
    sums = np.zeros((len(pairs), 2 * len(subtasks)))
    for row, ((category, image), hits) in enumerate(pairs.items()):
        if len(hits) != 2:
            raise InputError(
                f"MME {category}, image {image}: {len(hits)} questions answered where the score is"
                " of pairs; run the whole task"
            )
        k = subtasks.index(category)
        sums[row, k] = 100 * np.mean(hits) + 100 * float(all(hits))
        sums[row, k + len(subtasks)] = 1
    return [image for _, image in pairs], sums


SCORERS: dict[str, Callable[[Sequence[Record]], Outcome]] = {
    "textvqa": textvqa,
    "sqa": scienceqa,
    "realworldqa": realworldqa,
    "pope": pope,
    "gqa": gqa,
    "mme": mme,
}


def over_seeds(outcomes: Sequence[Outcome]) -> Outcome:
    """One outcome of several training seeds' outcomes on the same questions.

    A detail that differs between seeds becomes the list of its values.
    """
    measures = {}
    for name, first in outcomes[0].measures.items():
        same = [outcome.measures[name] for outcome in outcomes]
        if any(list(m.samples) != list(first.samples) for m in same):
            raise ValueError(f"{name}: the seeds were not asked about the same images")
        measures[name] = dataclasses.replace(first, sums=np.concatenate([m.sums for m in same]))
    answers = [
        {"seed": seed, **answer}
        for seed, outcome in enumerate(outcomes)
        for answer in outcome.answers
    ]
    details = dict(outcomes[0].details)
    for name in details:
        each = [outcome.details[name] for outcome in outcomes]
        if any(value != each[0] for value in each):
            details[name] = each
    return dataclasses.replace(outcomes[0], measures=measures, details=details, answers=answers)


def _percent(records: Sequence[Record], scores: Sequence[float]) -> Measure:
    """Mean score in per cent, clustered by image."""
    return mean_measure([r["image"] for r in records], np.array(scores), scale=100, unit="%")


def _exact(records: Sequence[Record], score: Callable[[str, str], float]) -> Outcome:
    """A benchmark of one 0/1 rule. Its baseline always gives the commonest true answer."""
    scores = [score(r["response"], r["answer"]) for r in records]
    commonest = Counter(r["answer"] for r in records).most_common(1)[0][0]
    baseline = 100 * float(np.mean([score(commonest, r["answer"]) for r in records]))
    baselines = {"commonest answer": baseline}
    return _outcome("accuracy", {"accuracy": _percent(records, scores)}, records, scores, baselines)


def _outcome(
    headline: str,
    measures: dict[str, Measure],
    records: Sequence[Record],
    scores: Sequence[float],
    baselines: dict[str, float] | None = None,
    details: dict[str, object] | None = None,
) -> Outcome:
    answers = [{**r, "score": s} for r, s in zip(records, scores, strict=True)]
    images = len({r["image"] for r in records})
    counts: dict[str, object] = {"questions": len(records), "images": images}
    return Outcome(headline, measures, baselines or {}, counts | (details or {}), answers)
