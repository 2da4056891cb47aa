"""The six vision-language benchmarks' rules: from recorded answers to figures.

A rule is a pure function of one response and its ground truth. A benchmark's function takes records

    {"image": name of the image, "response": what the model said, ...ground truth...}

and gives an `Outcome` whose samples are images, so that intervals respect that questions about one
image are correlated. Written from the rules' published descriptions; where LLaVA-1.5's scripts and
lmms-eval differ, the docstring says which one is followed.
"""

from __future__ import annotations

import dataclasses
import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from openeupe.errors import InputError
from openeupe.evaluate.measure import Array, Measure, Outcome, joined, mean_measure

Record = Mapping[str, Any]

# ---- TextVQA ----

_NUMBERS = "zero one two three four five six seven eight nine ten"
_DIGITS = {word: str(digit) for digit, word in enumerate(_NUMBERS.split())} | {"none": "0"}
_ARTICLES = {"a", "an", "the"}
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
# Contracted words that people write with an apostrophe missing. A word that is another word without
# it ("its", "were", "well", "shed") is left alone.
_CONTRACTED = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't
haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am might've mightn't
mightn't've must've mustn't needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've
shouldn't shouldn't've somebody'd somebody'd've somebody'll somebody's someone'd someone'd've
someone'll someone's something'd something'd've something'll that's there'd there'd've there're
there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're
what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're
why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're
you've
"""
_APOSTROPHES = {
    word[:place] + word[place + 1 :]: word
    for word in _CONTRACTED.split()
    for place in range(len(word))
    if word[place] == "'"
}


def normalized_answer(answer: str) -> str:
    """The VQA challenge's (EvalAI) normal form, in the variant that TextVQA uses.

    Lower case; commas and question marks go, "'s" is split off; a punctuation mark goes if it
    touches a space anywhere in the answer and becomes a space otherwise; full stops go except
    before a digit; number words to ten (and "none") become digits; articles go; apostrophes left
    out of contractions come back.
    """
    text = answer.lower().replace(",", "").replace("?", "").replace("'s", " 's")
    text = text.strip().replace("\n", " ").replace("\t", " ").strip()
    loose = {mark for mark in _PUNCTUATION if mark + " " in text or " " + mark in text}
    text = "".join(c if c not in _PUNCTUATION else "" if c in loose else " " for c in text)
    text = re.sub(r"\.(?!\d)", "", text)
    words = [_DIGITS.get(word, word) for word in text.split()]
    return " ".join(_APOSTROPHES.get(word, word) for word in words if word not in _ARTICLES)


def textvqa_score(response: str, answers: Sequence[str]) -> float:
    """Soft accuracy in [0, 1]: min(1, matches / 3) among all answers but one, averaged over it."""
    said = normalized_answer(response)
    matches = [normalized_answer(answer) == said for answer in answers]
    return float(np.mean([min((sum(matches) - match) / 3, 1.0) for match in matches]))


def textvqa(records: Sequence[Record]) -> Outcome:
    """TextVQA; records carry `answers` (ten) and `ocr_tokens` (whether the prompt listed them).

    LLaVA-1.5 lists the data set's OCR tokens in the prompt, and much of its score rests on them
    (RADIO: 52 with, 32 without): the headline is with them where they were listed; both are kept.
    """
    measures: dict[str, Measure] = {}
    scores = [textvqa_score(r["response"], r["answers"]) for r in records]
    for listed, name in ((True, "accuracy with OCR tokens"), (False, "accuracy")):
        rows = [i for i, r in enumerate(records) if bool(r.get("ocr_tokens")) is listed]
        if rows:
            measures[name] = _percent([records[i] for i in rows], [scores[i] for i in rows])
    return _outcome(next(iter(measures)), measures, records, scores)


# ---- ScienceQA, RealWorldQA, GQA ----


def scienceqa_choice(response: str, letters: str = "ABCDE") -> str | None:
    """The letter a response gives as LLaVA-1.5 reads it; None if it cannot be read.

    A letter alone, a letter before ". ", or exactly one "The answer is X" with something (as a full
    stop) after the letter. lmms-eval reads the letter in either case, "B." without the space, and
    no sentence.
    """
    text = response.strip()
    if text in set(letters):
        return text
    if text[:1] in set(letters) and text[1:3] == ". ":
        return text[0]
    named = re.findall(r"The answer is ([A-Z]).", text)
    return named[0] if len(named) == 1 and named[0] in letters else None


def scienceqa(records: Sequence[Record]) -> Outcome:
    """ScienceQA; records carry `answer` (a letter), `choices` (their number) and `has_image`.

    The headline is over questions with an image (LLaVA's SQA-I); "accuracy-full" is over all.
    """
    given = [scienceqa_choice(r["response"], "ABCDE"[: r["choices"]]) for r in records]
    scores = [float(said == r["answer"]) for said, r in zip(given, records, strict=True)]
    measures = {"accuracy-full": _percent(records, scores)}
    seen = [i for i, r in enumerate(records) if r["has_image"]]
    if seen:
        measures["accuracy"] = _percent([records[i] for i in seen], [scores[i] for i in seen])
    headline = "accuracy" if seen else "accuracy-full"
    counted = [records[i] for i in seen] or records
    floors = {"chance": float(100 * np.mean([1 / r["choices"] for r in counted]))}
    unread = sum(said is None for said in given)
    return _outcome(headline, measures, records, scores, floors, {"unparsable": unread})


# How a letter may be given, the surest form first; within a form the last one counts. A letter is
# a capital with no letter or digit beside it.
_LETTER_FORMS = [
    re.compile(form)
    for form in (
        r"^([A-D])(?!\w)",
        r"(?<!\w)([A-D])$",
        r"(?i:answer|option|choice)(?i: is)[\s:(\"']*([A-D])(?!\w)",
        r"\b(?i:I (?:choose|select|pick))[\s:(\"']*([A-D])(?!\w)",
        r"\(([A-D])\)",
        r"(?<!\w)([A-D])\.",
        r"(?<!\w)([A-D]):",
        r"(?<!\w)([A-D])\)",
        r"(?<!\w)([A-D])(?=\s)",
    )
]


def chosen_letter(response: str) -> str | None:
    """The option A to D that a response gives: "B", "(B)", "B. cat", "the answer is B", ...

    lmms-eval also takes a capital inside a word ("Cat" is C there), and after "answer is" the last
    of all letters that follow.
    """
    text = response.strip().strip("".join((string.whitespace, ",.!?;:'\"")))
    for form in _LETTER_FORMS:
        found = form.findall(text)
        if found:
            return str(found[-1])
    return None


def realworldqa_score(response: str, answer: str) -> float:
    """1 or 0: the letter where the truth is one of A to D, else equality as lmms-eval has it
    (lower case, final full stops dropped).
    """
    truth = answer.strip()
    if truth.upper() in {"A", "B", "C", "D"}:
        return float(chosen_letter(response) == truth.upper())
    return float(response.lower().strip().rstrip(".") == truth.lower())


def realworldqa(records: Sequence[Record]) -> Outcome:
    """RealWorldQA; records carry `answer`."""
    return _exact(records, realworldqa_score)


_DROP_PUNCTUATION = str.maketrans("", "", string.punctuation)


def gqa_score(response: str, answer: str) -> float:
    """1 or 0: equality without case, punctuation and surrounding white space.

    lmms-eval keeps the white space ("cat " is wrong there).
    """
    said, truth = (text.lower().translate(_DROP_PUNCTUATION).strip() for text in (response, answer))
    return float(said == truth)


def gqa(records: Sequence[Record]) -> Outcome:
    """GQA; records carry `answer`."""
    return _exact(records, gqa_score)


# ---- POPE ----


def pope_says_yes(response: str) -> bool:
    """LLaVA-1.5's reading: no if the first sentence has the word No, no or not, otherwise yes.

    lmms-eval instead takes nothing but exactly "yes" or "no": "Yes." counts as wrong there.
    """
    words = response.split(".")[0].replace(",", "").split()
    return not {"No", "no", "not"} & set(words)


def pope(records: Sequence[Record]) -> Outcome:
    """POPE; records carry `answer` ("yes" or "no") and `split` (random, popular, adversarial).

    The headline is the mean of the splits' F1, as LLaVA-1.5's is; "f1-pooled" is lmms-eval's, of
    all questions together. The yes-ratio is that of the model's answers.
    """
    splits = sorted({r["split"] for r in records})
    images = [r["image"] for r in records]
    said = np.array([pope_says_yes(r["response"]) for r in records], dtype=float)
    truth = np.array([r["answer"].strip().lower() == "yes" for r in records], dtype=float)
    # True positives, false positives, false negatives of each question.
    counts = np.stack([said * truth, said * (1 - truth), (1 - said) * truth], axis=1)
    member = np.array([[r["split"] == split for split in splits] for r in records], dtype=float)
    by_split = (counts[:, :, None] * member[:, None, :]).reshape(len(records), -1)
    right = (said == truth).astype(float)
    always = np.stack([truth, 1 - truth, 0 * truth], axis=1)
    always_by_split = (always[:, :, None] * member[:, None, :]).reshape(len(records), -1)

    def measure(metric: str, sums: Array) -> Measure:
        return joined(metric, images, sums[None], scale=100, unit="%")

    measures = {
        "f1": measure("class_f1", by_split),
        "f1-pooled": measure("f1", counts),
        **{f"f1-{s}": measure("f1", counts * member[:, [k]]) for k, s in enumerate(splits)},
        "accuracy": _percent(records, right.tolist()),
        "precision": measure("mean", np.stack([said * truth, said], axis=1)),
        "recall": measure("mean", np.stack([said * truth, truth], axis=1)),
        "yes-ratio": _percent(records, said.tolist()),
    }
    floors = {"always yes": measure("class_f1", always_by_split).value}
    return _outcome("f1", measures, records, right.tolist(), floors, {"splits": splits})


# ---- MME ----

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


def mme_reply(response: str) -> str:
    """ "yes", "no" or "other": sought in the first four characters, lower case, without "."."""
    text = response.lower().strip().replace(".", "")
    if text in {"y", "n"}:
        return {"y": "yes", "n": "no"}[text]
    return next((reply for reply in ("yes", "no") if reply in text[:4]), "other")


def mme(records: Sequence[Record]) -> Outcome:
    """MME perception; records carry `answer` and `category`; two of each image and category.

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
    floors = {"always yes": joined("class_sum", samples, always[None]).value}
    return _outcome("perception", measures, kept, right, floors, {"subtasks": subtasks})


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


# ---- what they share ----

SCORERS: dict[str, Callable[[Sequence[Record]], Outcome]] = {
    "textvqa": textvqa,
    "sqa": scienceqa,
    "realworldqa": realworldqa,
    "pope": pope,
    "gqa": gqa,
    "mme": mme,
}


def over_seeds(outcomes: Sequence[Outcome]) -> Outcome:
    """One outcome of several training seeds' outcomes on the same questions."""
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
    return dataclasses.replace(outcomes[0], measures=measures, answers=answers)


def _percent(records: Sequence[Record], scores: Sequence[float]) -> Measure:
    """Mean score in per cent, clustered by image."""
    return mean_measure([r["image"] for r in records], np.array(scores), scale=100, unit="%")


def _exact(records: Sequence[Record], score: Callable[[str, str], float]) -> Outcome:
    """A benchmark of one 0/1 rule; its floor always gives the commonest true answer."""
    scores = [score(r["response"], r["answer"]) for r in records]
    commonest = Counter(r["answer"] for r in records).most_common(1)[0][0]
    floor = 100 * float(np.mean([score(commonest, r["answer"]) for r in records]))
    floors = {"commonest answer": floor}
    return _outcome("accuracy", {"accuracy": _percent(records, scores)}, records, scores, floors)


def _outcome(
    headline: str,
    measures: dict[str, Measure],
    records: Sequence[Record],
    scores: Sequence[float],
    floors: dict[str, float] | None = None,
    details: dict[str, object] | None = None,
) -> Outcome:
    answers = [{**r, "score": s} for r, s in zip(records, scores, strict=True)]
    images = len({r["image"] for r in records})
    counts: dict[str, object] = {"questions": len(records), "images": images}
    return Outcome(headline, measures, floors or {}, counts | (details or {}), answers)
