"""The packaged reader: what it knows."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from openeupe.datasets.scenes.dataset import HELD_OUT, Scenes
from openeupe.evaluation.vlm.marking import is_right
from openeupe.evaluation.vlm.model import VisionLanguage
from openeupe.evaluation.vlm.prompts import put
from openeupe.evaluation.vlm.reader import FOLDER, load_reader, truth

pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return Scenes(40, seed=5, resolution=32, split="test")


def answers(reader: VisionLanguage, scenes: Scenes, seen: torch.Tensor) -> list[str]:
    asked = scenes.questions()
    texts = [put(question, "bare") for question in asked]
    return reader.generate(seen[[question.image for question in asked]], texts, max_new_tokens=4)


def test_it_answers_by_the_truth_of_scenes_it_never_saw(scenes: Scenes) -> None:
    asked, reader = scenes.questions(), load_reader()
    right, seen = Counter(), truth(scenes)
    for question, said in zip(asked, answers(reader, scenes, seen), strict=True):
        right[question.ability] += is_right(said, question)
    count = Counter(question.ability for question in asked)
    share = {ability: right[ability] / count[ability] for ability in count}
    assert min(share.values()) > 0.55, share
    # Without the truth it guesses.
    blind = answers(reader, scenes, torch.zeros_like(seen))
    guessed = sum(is_right(said, q) for said, q in zip(blind, asked, strict=True)) / len(asked)
    assert guessed < 0.4


def test_it_knows_pairs_that_no_lesson_named(scenes: Scenes) -> None:
    """Shape and colour are two marks, so that new pairs are read like old ones."""
    many = Scenes(200, seed=6, resolution=32, split="test")
    of = {
        k for k in range(200) if any((t.kind, t.colour) in HELD_OUT for t in many.stage(k).things)
    }
    asked = [q for q in many.questions() if q.ability == "exist" and q.image in of]
    reader = load_reader()
    seen = truth(many)[[question.image for question in asked]]
    said = reader.generate(seen, [put(q, "bare") for q in asked], max_new_tokens=2)
    assert sum(is_right(a, q) for a, q in zip(said, asked, strict=True)) > 0.75 * len(asked)


def test_what_it_says_is_always_the_same(scenes: Scenes) -> None:
    seen = truth(scenes)
    assert answers(load_reader(), scenes, seen) == answers(load_reader(), scenes, seen)


def test_its_weights_are_small_and_safe() -> None:
    files = [file for file in FOLDER.rglob("*") if file.is_file()]
    assert {file.suffix for file in files} == {".json", ".safetensors"}
    assert sum(file.stat().st_size for file in files) < 1_000_000
