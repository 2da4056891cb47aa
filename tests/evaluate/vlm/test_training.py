"""Training: what learns, what does not, and LLaVA's own files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from openeupe import encoders
from openeupe.data import Question
from openeupe.errors import InputError
from openeupe.evaluate.vlm import training
from openeupe.evaluate.vlm.language import tiny_language
from openeupe.evaluate.vlm.model import Form, VisionLanguage
from openeupe.evaluate.vlm.training import (
    Alignment,
    Lesson,
    Llava,
    Phase,
    align,
    fit_cached,
    read_llava,
    train_llava,
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


def test_every_image_comes_before_any_comes_again() -> None:
    batches = list(training._orders(10, 4, 5, seed=0))
    assert [len(batch) for batch in batches] == [4] * 5
    order = [k for batch in batches for k in batch]
    assert sorted(order[:10]) == sorted(order[10:]) == list(range(10))
    assert order[:10] != order[10:]


def write_llava(folder: Path) -> Path:
    entries = []
    for k in range(6):
        rng = np.random.default_rng(k)
        Image.fromarray(rng.integers(0, 255, (20, 30, 3), np.uint8)).save(folder / f"{k}.png")
        said = [("human", "<image>\nwhat colour?"), ("gpt", COLOURS[k % 3])]
        said += [("human", "is it red?"), ("gpt", "no")]
        entry = {"image": f"{k}.png", "conversations": [{"from": a, "value": b} for a, b in said]}
        entries.append(entry)
    del entries[2]["image"]  # LLaVA's mixture holds conversations without an image
    file = folder / "talks.json"
    file.write_text(json.dumps(entries))
    return file


def settings(**changes: object) -> Llava:
    given: dict[str, object] = {
        "align": Phase(train="projector", lr=1e-3, batch_size=4, steps=2, template="plain"),
        "tune": Phase(train="all", lr=1e-3, batch_size=4, steps=2),
        "form": Form(side=32),
        "micro_batch": 2,
        "precision": "fp32",
        "workers": 1,
    }
    return Llava(**{**given, **changes})


def test_llava_files_to_a_saved_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_llava(tmp_path)
    language, tokenizer = tiny_language(["what colour? is it red? no green blue"] * 3, width=32)
    language.save_pretrained(tmp_path / "lm")
    tokenizer.save_pretrained(tmp_path / "lm")
    encoder = encoders.create("raw_pixels")
    data = (file, tmp_path)
    first = train_llava(encoder, tmp_path / "lm", data, data, tmp_path / "out", settings(), seed=0)
    question = ["what colour?"]
    image = [Image.open(tmp_path / "0.png")]
    loaded = VisionLanguage.load(tmp_path / "out")
    assert loaded.generate(image, question) == first.generate(image, question)

    # Interrupted in the second phase, it goes on behind the first.
    phases = []
    fit = training._fit_llava

    def failing(model: VisionLanguage, phase: Phase, *rest: object) -> list[float]:
        phases.append(phase.train)
        if phases == ["projector", "all"]:
            raise KeyboardInterrupt
        return fit(model, phase, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(training, "_fit_llava", failing)
    for _ in range(2):
        try:
            second = train_llava(
                encoder, tmp_path / "lm", data, data, tmp_path / "again", settings(), seed=0
            )
        except KeyboardInterrupt:
            continue
    assert phases == ["projector", "all", "all"]
    for key, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[key]), key


def test_micro_batches_add_up_to_the_batch(tmp_path: Path) -> None:
    talks = read_llava(write_llava(tmp_path))
    losses = []
    for micro in (2, 4):
        language, tokenizer = tiny_language(["what colour? is it red? no green blue"], width=32)
        form = Form(side=32, template="bare")
        encoder = encoders.create("raw_pixels")
        model = VisionLanguage(language, tokenizer, 192, form, encoder=encoder)
        phase = Phase(train="projector", lr=1e-3, batch_size=4, steps=3)
        made = settings(micro_batch=micro)
        losses.append(training._fit_llava(model, phase, talks, tmp_path, made, 0, None))
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.parametrize(
    "content", ["no json", "[]", '[{"image": "a.png"}]', '[{"conversations": [{"from": "human"}]}]']
)
def test_what_is_no_conversation_is_one_clear_line(tmp_path: Path, content: str) -> None:
    file = tmp_path / "talks.json"
    file.write_text(content)
    with pytest.raises(InputError, match=r"talks\.json"):
        read_llava(file)


def test_a_missing_image_is_one_clear_line(tmp_path: Path) -> None:
    file = write_llava(tmp_path)
    (tmp_path / "1.png").unlink()
    language, tokenizer = tiny_language(["what colour?"], width=32)
    model = VisionLanguage(
        language, tokenizer, 192, Form(side=32), encoder=encoders.create("raw_pixels")
    )
    phase = Phase(train="projector", lr=1e-3, batch_size=6, steps=1)
    with pytest.raises(InputError, match=r"1\.png"):
        training._fit_llava(
            model, phase, read_llava(file), tmp_path, settings(micro_batch=6), 0, None
        )
