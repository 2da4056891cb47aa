"""LLaVA's own files: to a model, again after an interruption, and refused where they are wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from openeupe import encoders
from openeupe.errors import InputError
from openeupe.evaluation.vlm import llava
from openeupe.evaluation.vlm.language import tiny_language
from openeupe.evaluation.vlm.llava import Llava, read_llava, train_llava
from openeupe.evaluation.vlm.model import Form, VisionLanguage
from openeupe.evaluation.vlm.training import Phase
from openeupe.progress import LOGGED

pytest.importorskip("transformers")


def write_llava(folder: Path) -> Path:
    entries = []
    for k in range(6):
        rng = np.random.default_rng(k)
        Image.fromarray(rng.integers(0, 255, (20, 30, 3), np.uint8)).save(folder / f"{k}.png")
        said = [("human", "<image>\nwhat colour?"), ("gpt", ["red", "green", "blue"][k % 3])]
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
        "form": Form(resolution=32),
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
    fit = llava._fit_llava

    def failing(model: VisionLanguage, phase: Phase, *rest: object) -> list[float]:
        phases.append(phase.train)
        if phases == ["projector", "all"]:
            raise KeyboardInterrupt
        return fit(model, phase, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(llava, "_fit_llava", failing)
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


@pytest.mark.parametrize("changed", ["encoder", "data", "images", "language"])
def test_a_projector_of_other_weights_or_data_is_not_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    """Interrupted behind the first phase, then called again with something else of one name."""
    file = write_llava(tmp_path)
    texts = ["what colour? is it red? no green blue"] * 3

    def save_language(seed: int) -> None:
        language, tokenizer = tiny_language(texts, width=32, seed=seed)
        language.save_pretrained(tmp_path / "lm")
        tokenizer.save_pretrained(tmp_path / "lm")

    save_language(0)
    encoder = encoders.create("test_vit", pretrained=False)
    phases = []
    fit = llava._fit_llava

    def failing(model: VisionLanguage, phase: Phase, *rest: object) -> list[float]:
        phases.append(phase.train)
        if phase.train == "all":
            raise KeyboardInterrupt
        return fit(model, phase, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(llava, "_fit_llava", failing)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train_llava(encoder, tmp_path / "lm", (file, tmp_path), (file, tmp_path),
                        tmp_path / "out", settings(), seed=0)  # fmt: skip
        if changed == "encoder":
            with torch.no_grad():
                next(iter(encoder.parameters())).add_(1)
        elif changed == "data":
            file.write_text(file.read_text().replace('"no"', '"yes"'))
        elif changed == "images":
            Image.new("RGB", (30, 20)).save(tmp_path / "0.png")
        else:
            save_language(1)
    assert phases == ["projector", "all"] * 2


def test_micro_batches_add_up_to_the_batch(tmp_path: Path) -> None:
    talks = read_llava(write_llava(tmp_path))
    losses = []
    for micro in (2, 4):
        language, tokenizer = tiny_language(["what colour? is it red? no green blue"], width=32)
        form = Form(resolution=32, template="bare")
        encoder = encoders.create("raw_pixels")
        model = VisionLanguage(language, tokenizer, 192, form, encoder=encoder)
        phase = Phase(train="projector", lr=1e-3, batch_size=4, steps=3)
        made = settings(micro_batch=micro)
        losses.append(llava._fit_llava(model, phase, talks, tmp_path, made, 0, LOGGED))
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
        language, tokenizer, 192, Form(resolution=32), encoder=encoders.create("raw_pixels")
    )
    phase = Phase(train="projector", lr=1e-3, batch_size=6, steps=1)
    with pytest.raises(InputError, match=r"1\.png"):
        llava._fit_llava(
            model, phase, read_llava(file), tmp_path, settings(micro_batch=6), 0, LOGGED
        )


def trained(tmp_path: Path, **changes: object) -> list[float]:
    file = write_llava(tmp_path)
    language, tokenizer = tiny_language(["what colour? is it red? no green blue"] * 3, width=32)
    encoder = encoders.create("raw_pixels")
    model = VisionLanguage(
        language, tokenizer, encoder.patch_dim, Form(resolution=32), encoder=encoder
    )
    given = settings(**changes)
    phase = given.tune.model_copy(update={"steps": 3})
    return llava._fit_llava(model, phase, read_llava(file), tmp_path, given, 0, LOGGED)


def test_a_conversation_cut_before_its_first_answer_loses_nothing(tmp_path: Path) -> None:
    file = write_llava(tmp_path)
    entries = json.loads(file.read_text())
    long = {"from": "human", "value": "what colour? " * 200}
    for entry in entries[:3]:
        entry["conversations"][0] = long
    file.write_text(json.dumps(entries))
    language, tokenizer = tiny_language(["what colour? is it red? no green blue"] * 3, width=32)
    encoder = encoders.create("raw_pixels")
    model = VisionLanguage(
        language, tokenizer, encoder.patch_dim, Form(resolution=32), encoder=encoder
    )
    given = settings(max_length=400, micro_batch=1)
    losses = llava._fit_llava(model, given.tune, read_llava(file), tmp_path, given, 0, LOGGED)
    assert all(np.isfinite(losses))


def test_a_length_that_ends_inside_the_image_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"max_length 5 .*raise it"):
        trained(tmp_path, max_length=5)


def test_a_loss_that_is_no_number_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"loss .* nan .*lr"):
        trained(tmp_path, tune=Phase(train="all", lr=1e30, batch_size=4, steps=3))
