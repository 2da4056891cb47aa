"""The vision-language model: prompts, packing, answers, saving."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from openeupe import encoders
from openeupe.errors import InputError
from openeupe.evaluation.vlm.language import load_language, tiny_language, word_tokenizer
from openeupe.evaluation.vlm.model import Form, VisionLanguage, padded, pooled
from openeupe.evaluation.vlm.prompts import IMAGE, UNASKED, Sentence, collate, collate_left
from openeupe.evaluation.vlm.reader import FOLDER

pytest.importorskip("transformers")

TEXTS = ["is there a red star?", "how many keys are there?", "what colour is it? yes no red blue 3"]


def make(template: str = "bare", grid: int | None = 2, encoder: bool = False) -> VisionLanguage:
    language, tokenizer = tiny_language(TEXTS, width=32, layers=2, heads=2)
    eye = encoders.create("raw_pixels") if encoder else None
    form = Form(template=template, grid=grid, resolution=32)
    return VisionLanguage(language, tokenizer, 192 if encoder else 5, form, encoder=eye)


def shown(model: VisionLanguage, ids: list[int]) -> str:
    return model.tokenizer.decode([i for i in ids if i >= 0])


def picture(seed: int, size: tuple[int, int] = (40, 28)) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 255, (size[1], size[0], 3), np.uint8))


@pytest.mark.parametrize("template", ["bare", "vicuna_v1", "plain"])
def test_only_answers_are_learned(template: str) -> None:
    model = make(template)
    one = model.sentence([("how many keys are there?", "3")], 4)
    assert one.ids.count(IMAGE) == 4
    assert len(one.ids) == len(one.labels)
    learned = [label for label in one.labels if label != UNASKED]
    assert shown(model, learned).startswith("3")
    if template != "plain":
        assert learned[-1] == model.tokenizer.eos_token_id
        assert "how many keys are there" in shown(model, one.ids)
    for token, label in zip(one.ids, one.labels, strict=True):
        assert label in (UNASKED, token)


def test_two_turns_mark_both_answers_and_an_open_one_none() -> None:
    model = make("vicuna_v1")
    two = model.sentence([("is it red?", "yes"), ("<image> is it blue?", "no")], 4)
    answers = [label for label in two.labels if label != UNASKED]
    assert shown(model, answers).replace("</s>", " ").split() == ["yes", "no"]
    assert two.ids.count(IMAGE) == 4
    open_end = model.sentence([("is it red?", "")], 0)
    assert set(open_end.labels) == {UNASKED}
    assert two.ids[: open_end.ids.__len__()] != open_end.ids  # the image came before


def test_words_seen_are_tokens_and_others_are_spelt() -> None:
    tokenizer = word_tokenizer([*TEXTS * 20, "giraffe"], rare=0.005)
    assert len(tokenizer("how many keys", add_special_tokens=False).input_ids) == 3
    spelt = tokenizer("giraffe zoo", add_special_tokens=False).input_ids
    assert len(spelt) == len("giraffe") + len("zoo")
    assert tokenizer.decode(spelt) == "giraffe zoo"


@pytest.mark.parametrize("template", ["bare", "plain", "vicuna_v1"])
def test_packed_questions_lose_as_much_as_separate_ones(template: str) -> None:
    """With `plain` an answer follows the image at once: it is predicted from there in each."""
    model = make(template).eval()
    tokens = torch.randn(2, 5, 4, 4)
    asked = [("is there a red star?", "no"), ("how many keys are there?", "3"), ("red?", "yes")]
    sentences = [model.sentence([turn], 4) for turn in asked]
    # Each answer has two tokens, so that means over answers are means over tokens.
    apart = [model.loss(tokens[[k]], [[one]]).item() for k in (0, 1) for one in sentences]
    packed = model.loss(tokens, [sentences, sentences]).item()
    assert packed == pytest.approx(np.mean(apart), rel=1e-4)
    uneven = model.loss(tokens, [sentences[:1], sentences[1:]]).item()
    assert uneven == pytest.approx(np.mean([apart[0], apart[4], apart[5]]), rel=1e-4)


def test_packed_answers_have_the_gradient_of_separate_ones() -> None:
    model = make("plain").eval()
    tokens = torch.randn(1, 5, 4, 4)
    sentences = [model.sentence([("", answer)], 4) for answer in ("no", "3", "yes")]

    def gradient(loss: torch.Tensor) -> torch.Tensor:
        (found,) = torch.autograd.grad(loss, [model.projector[0].weight])
        return found

    packed = gradient(model.loss(tokens, [sentences]))
    apart = torch.stack([gradient(model.loss(tokens, [[one]])) for one in sentences]).mean(0)
    torch.testing.assert_close(packed, apart, rtol=1e-3, atol=1e-7)


def test_an_answer_that_nothing_comes_before_is_left_out() -> None:
    """A caption without an image, of a tokenizer without a first token."""
    model = make("plain").eval()
    one = model.sentence([("", "red blue")], 0)
    assert one.labels[0] != UNASKED
    without = Sentence(one.ids, [UNASKED, *one.labels[1:]])
    assert model.loss(None, [[one]]) == model.loss(None, [[without]])


def test_rows_without_any_answer_lose_nothing() -> None:
    model = make().eval()
    open_end = model.sentence([("red?", "")], 4)
    loss = model.loss(torch.randn(1, 5, 4, 4), [[open_end]])
    loss.backward()
    assert loss.item() == 0
    assert all(p.grad is None or p.grad.abs().max() == 0 for p in model.parameters())


def test_visual_tokens_must_fill_their_places() -> None:
    model = make().eval()
    one = model.sentence([("red?", "yes")], 4)
    cut = Sentence(one.ids[:3], one.labels[:3])
    with pytest.raises(ValueError, match="visual tokens"):
        model.loss(torch.randn(2, 5, 4, 4), [[cut], [one]])


def test_rows_must_share_their_beginning() -> None:
    model = make("vicuna_v1")
    with pytest.raises(ValueError, match="begin the same way"):
        collate([[model.sentence([("a", "b")], 4), model.sentence([("a", "b")], 2)]], 0)


def test_generation_continues_as_the_loss_was_computed() -> None:
    """Greedy answers are the argmax of a plain forward pass, in batches and one by one."""
    model = make().eval()
    tokens = torch.randn(3, 5, 4, 4)
    questions = ["is there a red star?", "red?", "how many keys are there?"]
    together = model.generate(tokens, questions, max_new_tokens=3)
    for k, question in enumerate(questions):
        assert model.generate(tokens[[k]], [question], max_new_tokens=3) == [together[k]]
        batch = collate_left([model.sentence([(question, "")], 4)], 0)
        logits = model.language(inputs_embeds=model._embedded(batch.ids, tokens[[k]])).logits
        first = model.tokenizer.decode([int(logits[0, -1].argmax())])
        assert together[k].startswith(first.replace("</s>", ""))


def test_answers_depend_on_the_image_only_if_there_is_one() -> None:
    model = make(encoder=True)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)  # far from the start, where all images look alike
    images = [picture(k) for k in range(12)]
    questions = ["is there a red star?"] * 12
    assert len(set(model.generate(images, questions, max_new_tokens=8))) > 1
    assert len(set(model.generate([None] * 12, questions, max_new_tokens=8))) == 1
    mixed = model.generate([images[0], None, images[1]], questions[:3], max_new_tokens=8)
    assert mixed[0] == model.generate(images[:1], questions[:1], max_new_tokens=8)[0]


def test_the_image_is_shown_on_a_square_of_the_mean_colour() -> None:
    square = np.asarray(padded(picture(0, (40, 20)), (1, 2, 3)))
    assert square.shape == (40, 40, 3)
    assert (square[:10] == (1, 2, 3)).all()
    assert (square[10:30] == np.asarray(picture(0, (40, 20)))).all()
    model = make(encoder=True, grid=None)
    assert model.look([picture(0), picture(1, (20, 50))]).shape == (2, 192, 2, 2)


def test_tokens_are_pooled_by_cells() -> None:
    tokens = torch.arange(16.0).view(1, 1, 4, 4)
    assert pooled(tokens, 2).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert pooled(tokens, None) is tokens


def test_saved_and_loaded_it_answers_the_same(tmp_path: Path) -> None:
    model = make(encoder=True)
    images = [picture(k) for k in range(4)]
    model.standardize(model.look(images))
    before = model.generate(images, TEXTS[:2] * 2, max_new_tokens=6)
    loaded = VisionLanguage.load(model.save(tmp_path / "vlm"))
    assert loaded.form == model.form
    assert loaded.generate(images, TEXTS[:2] * 2, max_new_tokens=6) == before
    for key, value in model.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[key]), key


def test_what_is_no_model_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no vision-language model"):
        VisionLanguage.load(tmp_path)
    facts = json.loads((FOLDER / "vision_language.json").read_text()) | {"format": 1}
    (tmp_path / "vision_language.json").write_text(json.dumps(facts))
    with pytest.raises(InputError, match="is of another version: train the model again"):
        VisionLanguage.load(tmp_path)
    with pytest.raises(InputError, match=r"language model .* cannot be loaded"):
        load_language(tmp_path)


@pytest.mark.parametrize("fault", ["missing", "narrow"])
def test_a_projector_that_does_not_fit_is_refused(tmp_path: Path, fault: str) -> None:
    """A missing tensor would leave random weights in its place."""
    folder = make(encoder=True).save(tmp_path / "vlm")
    weights = load_file(folder / "projector.safetensors")
    if fault == "missing":
        del weights["projector.2.weight"]
    else:
        weights["projector.2.weight"] = weights["projector.2.weight"][:, :-1].contiguous()
    save_file(weights, folder / "projector.safetensors")
    with pytest.raises(InputError, match=r"projector.safetensors.*projector.2.weight"):
        VisionLanguage.load(folder)


def test_a_language_model_that_lacks_weights_is_refused(tmp_path: Path) -> None:
    language, tokenizer = tiny_language(["is there a cup? yes"], width=16, layers=1, heads=2)
    language.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    load_language(tmp_path)
    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    name = next(name for name in weights if "q_proj" in name)
    save_file({k: v for k, v in weights.items() if k != name}, file, {"format": "pt"})
    with pytest.raises(InputError, match=f"lacks 1 of its weights, such as .*{name}"):
        load_language(tmp_path)


@pytest.mark.slow  # downloads 93 MB and unpacks them to 0.5 GB
def test_the_registry_language_model_knows_paris_and_learns() -> None:
    language, tokenizer = load_language("smollm2")
    model = VisionLanguage(language, tokenizer, 5, Form(template="chat", grid=2))
    said = model.generate([None], ["What is the capital of France?"], max_new_tokens=8)
    assert said == ["The capital of France is Paris."]
    one = model.sentence([("What colour is it?", "red")], 4)
    learned = [label for label in one.labels if label != UNASKED]
    assert tokenizer.decode(learned).split("<|im_end|>")[0] == "red"
    tokens = torch.randn(1, 5, 4, 4)
    packed = model.loss(tokens, [[one, one]])
    assert packed.item() == pytest.approx(model.loss(tokens, [[one]]).item(), rel=1e-3)


def test_places_are_told_apart_and_kept(tmp_path: Path) -> None:
    """Equal tokens become different ones by row and column, and are so again when loaded."""
    language, tokenizer = tiny_language(TEXTS, width=32)
    form = Form(grid=3, template="bare", projector="linear", placed=True)
    model = VisionLanguage(language, tokenizer, 5, form)
    seen = model.visual(torch.ones(1, 5, 3, 3))[0]
    assert len({tuple(row) for row in seen.tolist()}) == 9
    # Row and column add up, each told by itself.
    assert torch.allclose(seen[0] + seen[4], seen[1] + seen[3], atol=1e-5)
    model.save(tmp_path)
    assert torch.equal(VisionLanguage.load(tmp_path).visual(torch.ones(1, 5, 3, 3))[0], seen)
    with pytest.raises(ValueError, match="needs a grid"):
        Form(placed=True)


def test_answering_leaves_the_mode_of_every_part_as_it_was() -> None:
    model = make()
    model.train()
    model.projector.eval()  # as a frozen batch norm is
    before = [module.training for module in model.modules()]
    model.generate(torch.randn(1, 5, 4, 4), ["what is this?"])
    assert [module.training for module in model.modules()] == before
