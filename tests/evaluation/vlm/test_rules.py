"""The rules, by hand and against references written another way."""

from __future__ import annotations

import random

import pytest

from openeupe.evaluation.vlm import rules

from .phrases import phrase

CASES = 1500
NUMBERS = "zero one two three four five six seven eight nine ten"


@pytest.mark.parametrize(
    ("answer", "normal"),
    [
        ("two", "2"),
        ("Ten Dogs", "10 dogs"),
        ("none", "0"),
        ("The cat.", "cat"),
        ("A an the", ""),
        ("1,000", "1000"),
        ("3.50", "3.50"),
        ("3.", "3"),
        ("u.s.a.", "usa"),
        (".5", ".5"),
        ("it's", "it 's"),
        ("its", "its"),
        ("dont", "don't"),
        ("couldnt've", "couldn't've"),
        ("yall'll", "y'all'll"),
        ("twas", "'twas"),
        ("well", "well"),
        ("t-shirt", "t shirt"),
        ("t- shirt", "t shirt"),
        ("a-b - c-d", "ab cd"),
        ("yes!", "yes"),
        ("what?", "what"),
        ("rock\nroll\tband", "rock roll band"),
        ('"stop"', "stop"),
        ("(B)", "b"),
        ("24/7", "24 7"),
        ("", ""),
    ],
)
def test_normal_form_of_answers(answer: str, normal: str) -> None:
    assert rules.normalized_answer(answer) == normal


@pytest.mark.parametrize(
    ("said", "answers", "score"),
    [
        ("cat", ["cat"] * 10, 1.0),
        ("cat", ["dog"] * 10, 0.0),
        ("cat", ["cat"] + ["dog"] * 9, 0.3),
        ("cat", ["cat"] * 2 + ["dog"] * 8, 0.6),
        ("cat", ["cat"] * 3 + ["dog"] * 7, 0.9),
        ("cat", ["cat"] * 4 + ["dog"] * 6, 1.0),
        ("2", ["two"] * 10, 1.0),
        ("The Cat.", ["cat"] * 10, 1.0),
    ],
)
def test_soft_accuracy_leaves_one_answer_out(said: str, answers: list[str], score: float) -> None:
    assert rules.textvqa_score(said, answers) == pytest.approx(score)


@pytest.mark.parametrize(
    ("said", "letter"),
    [
        ("B", "B"),
        (" B\n", "B"),
        ("B. cat", "B"),
        ("The answer is B.", "B"),
        ("I think. The answer is C. Yes.", "C"),
        ("the answer is B.", None),
        ("The answer is B", None),  # nothing after the letter: LLaVA's pattern wants one character
        ("The answer is A. The answer is B.", None),
        ("B.", None),
        ("b", None),
        ("(B)", None),
        ("B.cat", None),
        ("F", None),
        ("cat", None),
        ("", None),
    ],
)
def test_letter_as_llava_reads_scienceqa(said: str, letter: str | None) -> None:
    assert rules.scienceqa_choice(said) == letter


@pytest.mark.parametrize(
    ("said", "letter"),
    [
        ("B", "B"),
        ("B.", "B"),
        ("(B)", "B"),
        ("(B).", "B"),
        ("B. cat", "B"),
        ("B) cat", "B"),
        ("B: cat", "B"),
        ("B cat", "B"),
        ("the answer is B", "B"),
        ("The answer is B because of the lamp", "B"),
        ("The correct option is (C), surely", "C"),
        ("It could be (A) or (D) here", "D"),
        ("Answer: C", "C"),
        ("I choose D of them all", "D"),
        ("b", None),
        ("Cars", None),
        ("E", None),
        ("It is a CAB.", None),
        ("", None),
    ],
)
def test_letter_of_realworldqa(said: str, letter: str | None) -> None:
    assert rules.chosen_letter(said) == letter


@pytest.mark.parametrize(
    ("said", "truth", "score"),
    [
        ("Downhill.", "Downhill", 1.0),
        ("DOWNHILL", "Downhill", 1.0),
        ("down hill", "Downhill", 0.0),
        ("2", "2", 1.0),
        ("two", "2", 0.0),
        ("C.", "C", 1.0),
        ("C", " c ", 1.0),
    ],
)
def test_realworldqa(said: str, truth: str, score: float) -> None:
    assert rules.realworldqa_score(said, truth) == score


@pytest.mark.parametrize(
    ("said", "yes"),
    [
        ("Yes.", True),
        ("yes", True),
        ("No", False),
        ("no.", False),
        ("No, there is not.", False),
        ("There is not a dog", False),
        ("Yes. There is no cat.", True),  # only the first sentence
        ("NO", True),
        ("There isn't", True),
        ("nothing", True),
        ("", True),
        ("maybe", True),
    ],
)
def test_pope_takes_all_but_no_for_yes(said: str, yes: bool) -> None:
    assert rules.pope_is_yes(said) is yes


@pytest.mark.parametrize(
    ("said", "truth", "score"),
    [
        ("Cat.", "cat", 1.0),
        ("t-shirt", "tshirt", 1.0),
        ("a cat", "cat", 0.0),
        (" cat\n", "cat", 1.0),
        ("two", "2", 0.0),
    ],
)
def test_gqa(said: str, truth: str, score: float) -> None:
    assert rules.gqa_score(said, truth) == score


@pytest.mark.parametrize(
    ("said", "reply"),
    [
        ("Yes.", "yes"),
        ("yes, it is", "yes"),
        ("No, there is not.", "no"),
        ("N", "no"),
        ("y", "yes"),
        ("not", "no"),
        ("It is no", "other"),
        ("eyes", "yes"),
        ("", "other"),
    ],
)
def test_mme_reads_four_characters(said: str, reply: str) -> None:
    assert rules.mme_reply(said) == reply


def plain_normal_form(answer: str) -> str:
    """The description followed step by step, on lists of characters and words."""
    text = answer.lower()
    for gone in ",?":
        text = "".join(c for c in text if c != gone)
    text = " 's".join(text.split("'s"))
    text = text.strip().replace("\n", " ").replace("\t", " ").strip()
    before = text
    for mark in [*';/[]"{}()=+\\_-><@`!']:
        touches = any(
            c == mark and (before[i + 1 : i + 2] == " " or (i > 0 and before[i - 1] == " "))
            for i, c in enumerate(before)
        )
        text = "".join(("" if touches else " ") if c == mark else c for c in text)
    kept = []
    for i, c in enumerate(text):
        if c == "." and not (i + 1 < len(text) and text[i + 1].isdigit()):
            continue
        kept.append(c)
    words = []
    for word in "".join(kept).split():
        if word in ("a", "an", "the"):
            continue
        if word == "none":
            word = "0"
        for n, name in enumerate(NUMBERS.split()):
            if word == name:
                word = str(n)
        words.append(
            {
                "dont": "don't",
                "wouldnt've": "wouldn't've",
                "couldn'tve": "couldn't've",
            }.get(word, word)
        )
    return " ".join(words)


def test_textvqa_equals_a_reference() -> None:
    r = random.Random(0)
    seen = set()
    for _ in range(CASES):
        answers = [phrase(r, 2) for _ in range(r.randint(1, 4))]
        answers = [r.choice(answers) for _ in range(10)]
        said = r.choice([*answers, phrase(r, 2)]).upper()
        parts, plain = [], [plain_normal_form(a) for a in answers]
        wanted = plain_normal_form(said)
        for left_out in range(10):
            same = [a for i, a in enumerate(plain) if i != left_out and a == wanted]
            parts.append(min(1, len(same) / 3))
        expected = sum(parts) / 10
        assert rules.textvqa_score(said, answers) == pytest.approx(expected)
        seen.add(round(expected, 3))
    assert {0.0, 0.3, 0.6, 0.9, 1.0} <= seen


def test_normal_form_equals_a_reference() -> None:
    r = random.Random(1)
    for _ in range(CASES):
        text = phrase(r, 6)
        assert rules.normalized_answer(text) == plain_normal_form(text), text


def plain_letter(said: str) -> str | None:
    """Forms tried one after another by looking at neighbouring characters."""
    text = said.strip().strip(" \t\n\r\x0b\x0c,.!?;:'\"")

    def word(c: str) -> bool:
        return c.isalnum() or c == "_"

    alone = [
        i
        for i, c in enumerate(text)
        if c in "ABCD"
        and not (i > 0 and word(text[i - 1]))
        and not (i + 1 < len(text) and word(text[i + 1]))
    ]
    if 0 in alone:
        return text[0]
    if alone and alone[-1] == len(text) - 1:
        return text[-1]
    for phrases in (["answer is", "option is", "choice is"], ["i choose", "i select", "i pick"]):
        found = None
        for i in alone:
            lead = text[:i].rstrip(" \t\n\r\x0b\x0c:(\"'").lower()
            for p in phrases:
                start = len(lead) - len(p)
                whole = p[0] != "i" or start == 0 or (start > 0 and not word(lead[start - 1]))
                if lead.endswith(p) and whole:
                    found = text[i]
        if found:
            return found
    for before, after in (("(", ")"), ("", "."), ("", ":"), ("", ")"), ("", " \n\t")):
        hits = [
            text[i]
            for i in alone
            if (not before or text[i - 1 : i] == before)
            and i + 1 < len(text)
            and text[i + 1] in after
        ]
        if hits:
            return hits[-1]
    return None


def test_realworldqa_equals_a_reference() -> None:
    r = random.Random(3)
    letters = 0
    for _ in range(2 * CASES):
        said, truth = phrase(r, 6), r.choice(["A", "B", "C", "D", "2", "Left", "cat dog"])
        if r.random() < 0.2:
            said = truth + r.choice(["", ".", " "])
        if len(truth) == 1 and truth.isalpha():
            expected = plain_letter(said) == truth
            letters += plain_letter(said) is not None
        else:
            text = said.lower().strip()
            while text.endswith("."):
                text = text[:-1]
            expected = text == truth.lower()
        assert rules.realworldqa_score(said, truth) == float(expected), (said, truth)
    assert letters > 300
