"""The small probe: baselines, the gate, and a whole run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from openeupe import encoders
from openeupe.datasets.question_data import BoxedPhotos, QuestionScenes
from openeupe.datasets.questions import Question
from openeupe.evaluation.benchmark import EvaluatedEncoder
from openeupe.evaluation.features import Features
from openeupe.evaluation.vlm.mini import VlmMini
from openeupe.evaluation.vlm.prompts import put
from openeupe.evaluation.vlm.training import Alignment, Lesson

pytest.importorskip("transformers")


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENEUPE_CACHE", str(tmp_path / "cache"))


def small(**changes: object) -> VlmMini:
    given: dict[str, object] = {
        "data": QuestionScenes(count=8, test_count=6, resolution=64),
        "phases": (Lesson(train="all", lr=2e-3, batch_size=8, steps=3),),
        "language_model": "tiny",
        "resolution": 64,
        "grid": 2,
        "seeds": 2,
        "baselines": ("blind", "raw pixels"),
    } | changes
    narrow = {"width": 32} if given["language_model"] == "tiny" else {}
    return VlmMini(**(narrow | given))


def evaluated() -> EvaluatedEncoder:
    encoder = encoders.create("raw_pixels")
    return EvaluatedEncoder(encoder, Features(encoder))


def test_a_run_gives_every_ability_with_baselines_answers_and_gate() -> None:
    benchmark = small()
    data = benchmark.open(Path())
    found = benchmark.run(data, evaluated())
    assert set(found) == {"exist", "count", "attribute", "spatial", "read", "choose"}
    for ability, outcome in found.items():
        assert outcome.headline == "accuracy"
        assert set(outcome.baselines) == {"blind", "raw pixels"}
        measure = outcome.measures["accuracy"]
        assert measure.sums.shape[0] == 2
        assert measure.sums[0, :, 1].sum() == outcome.details["questions"] == len(outcome.answers)
        assert outcome.details["resolved"] is False  # three steps teach nothing
        assert all(len(answer["predictions"]) == 2 for answer in outcome.answers), ability
    assert set(found["exist"].measures) == {"accuracy", "f1"}
    again = small().run(data, evaluated())
    for ability, outcome in found.items():
        assert outcome.answers == again[ability].answers
        assert outcome.baselines == again[ability].baselines


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each model that is trained from here on."""
    trained: list[int] = []
    answers = VlmMini._answers

    def answered(self: VlmMini, *args: object) -> list[str]:
        trained.append(1)
        return answers(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(VlmMini, "_answers", answered)
    return trained


def test_baselines_of_another_precision_are_trained_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """bf16's tokens are others than float32's, so that the cached baselines are not theirs."""
    benchmark = small(seeds=1, baselines=("raw pixels",))
    data = benchmark.open(Path())
    benchmark.run(data, evaluated())
    trained = counted(monkeypatch)
    encoder = encoders.create("raw_pixels")
    benchmark.run(data, EvaluatedEncoder(encoder, Features(encoder, precision="bf16")))
    assert len(trained) == 3  # the encoder, the baseline and the ceiling


def test_raw_pixels_are_their_own_baseline() -> None:
    """The same tokens by another road: seed 0's answers are those of the cached baseline."""
    benchmark = small(seeds=1)
    found = benchmark.run(benchmark.open(Path()), evaluated())
    for outcome in found.values():
        assert outcome.measures["accuracy"].value == pytest.approx(outcome.baselines["raw pixels"])


def test_baselines_are_trained_once(monkeypatch: pytest.MonkeyPatch) -> None:
    benchmark = small(seeds=1)
    data = benchmark.open(Path())
    benchmark.run(data, evaluated())
    trained = counted(monkeypatch)
    benchmark.run(data, evaluated())
    assert len(trained) == 1
    small(seeds=1, width=48).run(data, evaluated())
    assert len(trained) == 1 + 4  # other settings: the encoder, two baselines and the ceiling
    eye = evaluated()
    eye.features.precision = "bf16"  # raw pixels rounded: other baselines
    benchmark.run(data, eye)
    assert len(trained) == 1 + 4 + 4


def test_blind_answers_do_not_depend_on_the_image() -> None:
    benchmark = small()
    data = benchmark.open(Path())
    train, test = benchmark._replaced("blind", data, evaluated())
    said = benchmark._answers(train, test, data, 0, evaluated())
    by_text: dict[str, set[str]] = {}
    for question, answer in zip(data[1].questions(), said, strict=True):
        by_text.setdefault(put(question, benchmark.template), set()).add(answer)
    assert all(len(answers) == 1 for answers in by_text.values())
    assert not train.any()


def test_the_encoder_is_not_trained() -> None:
    encoder = encoders.create("vit_tiny_patch16_224", img_size=64)
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    benchmark = small(seeds=1, baselines=("blind",))
    benchmark.run(benchmark.open(Path()), EvaluatedEncoder(encoder, Features(encoder)))
    for key, value in encoder.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_questions_are_put_as_the_language_model_knows_them() -> None:
    question = Question(0, "which word is it?", ("A",), "choose", ("stop", "tea"))
    assert put(question, "bare") == "which word is it? A stop B tea"
    lines = put(question, "chat").split("\n")
    assert lines[:3] == ["which word is it?", "A. stop", "B. tea"]
    assert "letter" in lines[3]


def test_the_reader_has_a_ceiling_before_any_training() -> None:
    benchmark = small(
        data=QuestionScenes(count=12, test_count=20, resolution=32),
        language_model="reader",
        grid=7,
        alignment=Alignment(steps=2),
        seeds=1,
        baselines=("blind",),
    )
    found = benchmark.run(benchmark.open(Path()), evaluated())
    for ability, outcome in found.items():
        ceiling = outcome.details["ceiling"]
        assert isinstance(ceiling, float)
        assert ceiling > 50, ability
        assert outcome.details["language_model"] == "reader"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data": BoxedPhotos(path=Path("x")), "grid": 7}, "procedural scenes"),
        ({"grid": 4}, "grid 7"),
        ({"grid": 7, "template": "chat"}, "template bare"),
        ({"language_model": "tiny", "phases": ()}, "give some"),
        ({"grid": 7, "width": 32}, "width is of language_model tiny, not reader"),
        ({"language_model": "tiny", "alignment": Alignment(steps=2)}, "of language_model reader"),
    ],
)
def test_what_the_reader_cannot_read_is_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        small(**{"language_model": "reader", **changes})
