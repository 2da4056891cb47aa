"""Training: what learns, what does not, and in which order."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from openeupe.datasets.questions import Question
from openeupe.errors import InputError
from openeupe.evaluation.vlm.language import tiny_language
from openeupe.evaluation.vlm.model import Form, VisionLanguage
from openeupe.evaluation.vlm.training import (
    Alignment,
    Lesson,
    Phase,
    align,
    fit_cached,
)

pytest.importorskip("transformers")

COLOURS = ["red", "green", "blue"]


def made(seed: int = 0) -> tuple[VisionLanguage, Tensor, list[list[tuple[str, str]]]]:
    """Images whose colour is one dimension of their tokens."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randn(24, 4, 2, 2, generator=generator)
    for k in range(24):
        tokens[k, k % 3] += 4
    talks = [[("what colour?", COLOURS[k % 3]), ("is it red?", ["no", "yes"][k % 3 == 0])]
             for k in range(24)]  # fmt: skip
    language, tokenizer = tiny_language(
        [text for turns in talks for turn in turns for text in turn], width=32, seed=seed
    )
    return VisionLanguage(language, tokenizer, 4, Form(grid=2, template="bare")), tokens, talks


def test_it_learns_what_the_tokens_say() -> None:
    model, tokens, talks = made()
    phase = Phase(train="all", lr=3e-3, batch_size=12, steps=80)
    losses = fit_cached(model, phase, tokens, talks, packed=2, seed=0)
    assert len(losses) == 80
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:5])
    said = model.generate(tokens, ["what colour?"] * 24, max_new_tokens=3)
    assert said == [COLOURS[k % 3] for k in range(24)]


def test_the_first_phase_moves_the_projector_alone() -> None:
    model, tokens, talks = made()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    phase = Phase(train="projector", lr=1e-2, batch_size=8, steps=10)
    losses = fit_cached(model, phase, tokens, talks, packed=1, seed=0)
    moved = {
        key for key, value in model.state_dict().items() if not torch.equal(value, before[key])
    }
    assert moved == {key for key in before if key.startswith("projector.")}
    assert losses[-1] < losses[0]


def test_a_lesson_without_questions_is_over_at_once() -> None:
    model, tokens, talks = made()
    phase = Phase(train="all", lr=1e-2, batch_size=8, steps=10)
    assert fit_cached(model, phase, tokens, [[] for _ in talks], packed=1, seed=0) == []


def test_a_lesson_takes_the_questions_of_its_abilities() -> None:
    asked = [
        Question(1, "how many?", ("2",), "count"),
        Question(0, "which?", ("B",), "choose", ("tea", "sea")),
        Question(1, "is it?", ("no",), "exist"),
    ]
    given = {"train": "all", "lr": 1, "batch_size": 1}
    every = Lesson(**given).talks(asked, 3, "bare")
    assert every == [[("which? A tea B sea", "B")], [("how many?", "2"), ("is it?", "no")], []]
    counting = Lesson(**given, abilities=("count",)).talks(asked, 3, "bare")
    assert counting == [[], [("how many?", "2")], []]
    with pytest.raises(InputError, match="no question is of the abilities read, place"):
        Lesson(**given, abilities=("read", "place")).talks(asked, 3, "bare")
    with pytest.raises(ValidationError, match="abilities"):
        Lesson(**given, abilities=("counting",))


def test_alignment_moves_the_projector_alone_to_what_is_wanted() -> None:
    model, tokens, _ = made()
    kept = {key: value.clone() for key, value in model.language.state_dict().items()}
    spoken = torch.zeros(24, 4, dtype=torch.bool)
    spoken[:, 0] = True
    wanted = torch.zeros(24, 4, 32)
    wanted[:, 0] = torch.eye(32)[torch.arange(24) % 3]
    found = align(model, Alignment(steps=200, lr=1e-2), tokens, wanted, spoken, seed=0)
    assert np.mean(found[-10:]) < 0.5 * np.mean(found[:5])
    said = model.visual(tokens)[:, 0].argmax(-1)
    assert (said == torch.arange(24) % 3).float().mean() > 0.8
    for key, value in model.language.state_dict().items():
        assert torch.equal(value, kept[key]), key


def test_a_seed_fixes_everything() -> None:
    def trained(seed: int) -> Tensor:
        model, tokens, talks = made(seed)
        phase = Phase(train="all", lr=1e-3, batch_size=8, steps=4)
        fit_cached(model, phase, tokens, talks, packed=1, seed=seed)
        return torch.cat([p.flatten() for p in model.language.parameters()])

    assert torch.equal(trained(0), trained(0))
    assert not torch.equal(trained(0), trained(1))


def test_steps_follow_epochs() -> None:
    assert Phase(train="all", lr=1, batch_size=8).length(20) == 3
    assert Phase(train="all", lr=1, batch_size=8, epochs=2).length(20) == 5
    assert Phase(train="all", lr=1, batch_size=8, steps=7).length(20) == 7
