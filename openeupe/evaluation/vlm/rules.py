"""Scoring rules of the six vision-language benchmarks.

Each is a pure function of a response and its ground truth, written from the rules' published
descriptions; where LLaVA-1.5's scripts and lmms-eval differ, the docstring states which one is
used.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

import numpy as np

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
    given = normalized_answer(response)
    matches = [normalized_answer(answer) == given for answer in answers]
    return float(np.mean([min((sum(matches) - match) / 3, 1.0) for match in matches]))


# ---- ScienceQA, RealWorldQA, GQA ----


def scienceqa_choice(response: str, letters: str = "ABCDE") -> str | None:
    """The letter a response gives as LLaVA-1.5 reads it. None if it cannot be read.

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


# How a letter may be given, the surest form first; within a form the last one counts. A letter is
# a capital with no letter or digit next to it.
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


_DROP_PUNCTUATION = str.maketrans("", "", string.punctuation)


def gqa_score(response: str, answer: str) -> float:
    """1 or 0: equality without case, punctuation and surrounding white space.

    lmms-eval keeps the white space ("cat " is wrong there).
    """
    one, truth = (text.lower().translate(_DROP_PUNCTUATION).strip() for text in (response, answer))
    return float(one == truth)


# ---- POPE, MME ----


def pope_is_yes(response: str) -> bool:
    """LLaVA-1.5's reading: no if the first sentence has the word No, no or not, otherwise yes.

    lmms-eval instead takes nothing but exactly "yes" or "no": "Yes." counts as wrong there.
    """
    words = response.split(".")[0].replace(",", "").split()
    return not {"No", "no", "not"} & set(words)


def mme_reply(response: str) -> str:
    """ "yes", "no" or "other": sought in the first four characters, lower case, without "."."""
    text = response.lower().strip().replace(".", "")
    if text in {"y", "n"}:
        return {"y": "yes", "n": "no"}[text]
    return next((reply for reply in ("yes", "no") if reply in text[:4]), "other")
