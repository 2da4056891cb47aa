"""Answers such as models give, and worse, drawn at random."""

from __future__ import annotations

import random

WORDS_TEXT = """
the a an two Two none ten it's its dont don't cat cats Cat dog. 3.5 5. .5 1,000 yes no
Yes No not Not yes. No. No, B B. B: (B) B) A C D b E The answer is answer-is t-shirt
a/b [x] {y} ; ! ? what? @ wouldnt've couldn'tve u.s.a I choose option: 'B' "A" CAB
red blue dog's left right nothing there
"""
WORDS = WORDS_TEXT.split()


def phrase(r: random.Random, most: int = 4) -> str:
    glue = r.choices([" ", "  ", "\n", ", ", ". ", ""], [12, 1, 1, 2, 2, 1])[0]
    return glue.join(r.choice(WORDS) for _ in range(r.randint(0, most)))
