"""Drills: true of their scenes, in the words of the scenes' own questions, of every ability."""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from openeupe.datasets.question_data import cell_of
from openeupe.datasets.scenes.dataset import (
    CLASSES,
    HELD_OUT,
    RELATIONS,
    Scenes,
    plural_shape,
    relation,
)
from openeupe.datasets.scenes.drills import drills

from ..test_coco_questions import opened

GRID = 7


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return Scenes(60, resolution=64)


def test_answers_are_true_of_the_scene(scenes: Scenes) -> None:
    asked = Counter()
    for question in drills(scenes, GRID):
        stage = scenes.stage(question.image)
        things = [thing for thing in stage.things if thing.kind in CLASSES]
        kinds = Counter(thing.kind for thing in things)
        words = question.text.rstrip("?").split()
        (answer,) = question.answers
        asked[question.ability] += 1
        if question.ability == "place":
            (thing,) = (t for t in things if t.kind == words[4])
            middle = (thing.box[0] + thing.box[2]) / 2, (thing.box[1] + thing.box[3]) / 2
            assert answer == "{} {}".format(*cell_of(*middle, GRID))
        elif question.ability == "attribute":
            (thing,) = (t for t in things if t.kind == words[-1])
            assert answer == thing.colour
        elif question.ability == "exist":
            found = any([t.colour, t.kind] == words[-2:] for t in things)
            assert answer == ("yes" if found else "no")
        elif question.ability == "count":
            (kind,) = (k for k in CLASSES if plural_shape(k) == words[2])
            assert answer == str(kinds[kind])
        elif question.ability == "spatial":
            first, second = (next(t for t in things if t.kind == words[k]) for k in (2, -1))
            assert kinds[first.kind] == kinds[second.kind] == 1
            holds = relation(first, " ".join(words[3:-2]), second)
            assert answer == ("yes" if holds else "no")
            assert holds is not None
        elif question.ability == "read":
            assert stage.sign is not None
            assert answer == stage.sign.text.lower()
        else:
            assert len(set(question.choices)) == 4
            chosen = question.choices["ABCD".index(answer)]
            if "sign" in question.text:
                assert stage.sign is not None
                assert chosen == stage.sign.text.lower()
            else:
                assert [c for c in question.choices if kinds[c]] == [chosen]
    assert set(asked) == {
        "place", "exist", "count", "attribute", "spatial", "read", "choose"
    }  # fmt: skip
    assert min(asked.values()) >= len(scenes)


def test_yes_and_no_are_alike_frequent(scenes: Scenes) -> None:
    for ability in ("exist", "spatial"):
        said = Counter(q.answers[0] for q in drills(scenes, GRID) if q.ability == ability)
        assert 0.4 < said["yes"] / said.total() < 0.6


def test_held_out_pairs_are_not_named() -> None:
    """Else they would be learned as what is never there."""
    for split, named in (("train", False), ("test", True)):
        pairs = {
            tuple(reversed(re.findall(r"\w+", q.text)[-2:]))
            for q in drills(Scenes(150, resolution=32, split=split), GRID)
            if q.ability == "exist"
        }
        assert bool(pairs & HELD_OUT) is named


def test_drills_are_a_function_of_the_scene() -> None:
    assert drills(Scenes(5), GRID) == [q for q in drills(Scenes(8), GRID) if q.image < 5]
    assert drills(Scenes(5), GRID) != drills(Scenes(5, seed=1), GRID)


def test_photos_have_none(tmp_path: Path) -> None:
    assert drills(opened(tmp_path), GRID) == []


def test_a_relation_needs_a_difference() -> None:
    things = [t for k in range(20) for t in Scenes(20).stage(k).things]
    for first, second in pairwise(things):
        for words, converse in zip(RELATIONS[::2], RELATIONS[1::2], strict=True):
            holds = relation(first, words, second)
            assert relation(second, converse, first) is holds
            assert relation(first, converse, second) is (None if holds is None else not holds)
            assert relation(first, words, first) is None
