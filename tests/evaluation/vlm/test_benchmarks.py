from __future__ import annotations

import importlib.machinery
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from openeupe.encoders import create
from openeupe.errors import InputError
from openeupe.evaluation.benchmark import EvaluatedEncoder
from openeupe.evaluation.features import Features
from openeupe.evaluation.vlm import benchmarks
from openeupe.evaluation.vlm.benchmarks import VlmBenchmarks, records_of
from openeupe.evaluation.vlm.language import tiny_language
from openeupe.evaluation.vlm.scorers import SCORERS
from tests.evaluation.vlm.local_tasks import TASKS, documents, write_tasks


def llava_folder(root: Path, images: int = 4) -> dict[str, str]:
    """LLaVA-1.5's layout with a handful of entries; returns the benchmark's settings for it."""
    pictures = root / "coco" / "train2017"
    pictures.mkdir(parents=True)
    entries: list[dict[str, Any]] = []
    for n in range(images):
        Image.new("RGB", (32, 24), (60 * n, 0, 0)).save(pictures / f"{n}.jpg")
        said = [
            {"from": "human", "value": "<image>\nWhat is it?"},
            {"from": "gpt", "value": "red"},
        ]
        entries.append({"id": n, "image": f"coco/train2017/{n}.jpg", "conversations": said})
    (root / "align.json").write_text(json.dumps(entries))
    text = {"id": "t", "conversations": [{"from": "human", "value": "Hi"}] * 2}
    (root / "tune.json").write_text(json.dumps([*entries, text]))
    return {
        "align_data": "align.json",
        "align_images": ".",
        "tune_data": "tune.json",
        "tune_images": ".",
    }


@pytest.fixture
def libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if lmms-eval were installed."""
    pytest.importorskip("transformers")
    find = importlib.util.find_spec
    spec = importlib.machinery.ModuleSpec("lmms_eval", None)
    monkeypatch.setattr(
        benchmarks.importlib.util,
        "find_spec",
        lambda name, *rest: spec if name == "lmms_eval" else find(name, *rest),
    )


@pytest.mark.usefixtures("libraries")
def test_opens_llava_data(tmp_path: Path) -> None:
    benchmark = VlmBenchmarks(**llava_folder(tmp_path))
    data = benchmark.open(tmp_path)
    assert data.align == (tmp_path / "align.json", tmp_path)
    assert len(data.fingerprint) == 16


@pytest.mark.usefixtures("libraries")
def test_the_identity_covers_images_and_language_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmarks, "version", lambda _: "1")
    model = tmp_path / "model"
    (model / "weights").mkdir(parents=True)
    (model / "weights/part").write_text("a")
    benchmark = VlmBenchmarks(**llava_folder(tmp_path), language_model=str(model))
    found = [benchmark.identities(benchmark.open(tmp_path))]
    Image.new("RGB", (32, 24), (0, 9, 0)).save(tmp_path / "coco/train2017/0.jpg")
    found.append(benchmark.identities(benchmark.open(tmp_path)))
    (model / "weights/part").write_text("b")
    found.append(benchmark.identities(benchmark.open(tmp_path)))
    assert found[0][0] != found[1][0] == found[2][0]
    assert found[0][1] == found[1][1] != found[2][1]
    monkeypatch.setattr(benchmarks, "version", lambda _: "2")  # of lmms-eval
    assert benchmark.identities(benchmark.open(tmp_path)) != found[2]


@pytest.mark.usefixtures("libraries")
def test_bad_data_is_one_line(tmp_path: Path) -> None:
    settings = llava_folder(tmp_path)
    with pytest.raises(InputError, match=r"none\.json: no such file"):
        VlmBenchmarks(**{**settings, "align_data": "none.json"}).open(tmp_path)
    with pytest.raises(InputError, match="pictures: no such folder"):
        VlmBenchmarks(**{**settings, "tune_images": "pictures"}).open(tmp_path)
    with pytest.raises(InputError, match="task_folder"):
        VlmBenchmarks(**settings, task_folder="none").open(tmp_path)
    (tmp_path / "coco/train2017/2.jpg").unlink()
    with pytest.raises(InputError, match=r"2\.jpg: image of align\.json is missing \(1 of 4"):
        VlmBenchmarks(**settings).open(tmp_path)
    for content in ("[", "[1]", '[{"id": 1}]', "[]", '[{"conversations": []}]'):
        (tmp_path / "align.json").write_text(content)
        with pytest.raises(InputError, match=r"align\.json"):
            VlmBenchmarks(**settings).open(tmp_path)


def test_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmarks.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'openeupe\[vlm-bench\]'"):
        VlmBenchmarks(**llava_folder(tmp_path)).open(tmp_path)


def said(benchmark: str, doc: dict[str, Any]) -> str:
    """The right answer to a document."""
    if benchmark == "textvqa":
        return str(doc["answers"][0])
    return "ABCDE"[doc["answer"]] if benchmark == "sqa" else str(doc["answer"])


def logged(benchmark: str) -> list[dict[str, Any]]:
    """What lmms-eval logs of right answers: the documents without their images."""
    return [
        {
            "doc_id": number,
            "doc": {key: value for key, value in doc.items() if key != "image"},
            "filtered_resps": [said(benchmark, doc)],
        }
        for number, doc in enumerate(documents(benchmark))
    ]


@pytest.mark.parametrize("benchmark", list(TASKS))
def test_logged_samples_are_scored(benchmark: str) -> None:
    records = records_of(benchmark, logged(benchmark), {("scienceqa", 1)}, TASKS[benchmark])
    outcome = SCORERS[benchmark](records)
    assert outcome.measures[outcome.headline].value == pytest.approx(
        400 if benchmark == "mme" else 100
    )
    images = {"textvqa": 3, "gqa": 2, "sqa": 5, "mme": 4}.get(benchmark, 6)
    assert len(outcome.measures[outcome.headline].samples) == images
    json.dumps(outcome.answers)


def test_an_image_that_another_task_lacked_is_not_missing_here() -> None:
    """lmms-eval numbers the documents of each task from 0."""
    lacked = {("scienceqa", 1), ("mme", 0), ("mme", 2)}
    records = records_of("sqa", logged("sqa"), lacked, "scienceqa")
    assert [r["has_image"] for r in records] == [True, False, *[True] * (len(records) - 2)]


def test_a_changed_data_set_is_named() -> None:
    samples = logged("pope")
    del samples[0]["doc"]["image_source"]
    with pytest.raises(InputError, match="pope: its documents have no field 'image_source'"):
        records_of("pope", samples, (), "pope")


@pytest.fixture
def tiny(tmp_path: Path) -> tuple[dict[str, Any], EvaluatedEncoder]:
    """Settings and an encoder with which training takes a second."""
    pytest.importorskip("transformers")
    words = ["what is it red Hi yes no cat A B"]
    language, tokenizer = tiny_language(words, width=32, layers=1, rare=0.0)
    language.save_pretrained(tmp_path / "language")
    tokenizer.save_pretrained(tmp_path / "language")
    llava = {
        "align": {"train": "projector", "lr": 1e-3, "batch_size": 2, "template": "plain"},
        "tune": {"train": "all", "lr": 1e-3, "batch_size": 2},
        "form": {"resolution": 32, "template": "bare"},
        "micro_batch": 1,
        "precision": "fp32",
        "recompute": False,
        "workers": 1,
    }
    (tmp_path / "data").mkdir()
    settings = llava_folder(tmp_path / "data")
    encoder = create("vit_tiny_patch16_224", depth=1, img_size=32)
    evaluated = EvaluatedEncoder(encoder, Features(encoder), folder=tmp_path / "kept")
    benchmark = {**settings, "language_model": str(tmp_path / "language"), "llava": llava}
    return benchmark, evaluated


@pytest.mark.usefixtures("libraries")
def test_a_finished_training_is_not_repeated(
    tmp_path: Path, tiny: tuple[dict[str, Any], EvaluatedEncoder]
) -> None:
    settings, evaluated = tiny
    benchmark = VlmBenchmarks(**settings)
    data = benchmark.open(tmp_path / "data")
    first = benchmark._trained(data, evaluated, tmp_path / "kept", 0)
    weights = first / "projector.safetensors"
    written = weights.stat().st_mtime_ns
    assert benchmark._trained(data, evaluated, tmp_path / "kept", 0) == first
    assert weights.stat().st_mtime_ns == written
    other = benchmark._trained(data, evaluated, tmp_path / "kept", 1)
    assert other != first
    assert (other / "projector.safetensors").read_bytes() != weights.read_bytes()


def test_trains_asks_and_scores(
    tmp_path: Path, tiny: tuple[dict[str, Any], EvaluatedEncoder]
) -> None:
    """The whole benchmark on generated data: two trainings, six tasks, six outcomes."""
    pytest.importorskip("lmms_eval")
    settings, evaluated = tiny
    (tmp_path / "data/tasks").mkdir()
    tasks = write_tasks(tmp_path / "data/tasks")
    benchmark = VlmBenchmarks(**settings, tasks=tasks, task_folder="tasks", seeds=2)
    outcomes = benchmark.run(benchmark.open(tmp_path / "data"), evaluated)
    assert list(outcomes) == list(tasks)
    for name, outcome in outcomes.items():
        measure = outcome.measures[outcome.headline]
        assert measure.sums.shape[0] == 2
        assert 0 <= measure.value <= (400 if name == "mme" else 100)
        assert {answer["seed"] for answer in outcome.answers} == {0, 1}
        assert outcome.details["lmms_eval"]
    json.dumps([o.answers for o in outcomes.values()])


def test_asks_the_six_tasks_through_lmms_eval(tmp_path: Path) -> None:
    """The benchmarks' own task files and functions, over generated documents of their fields."""
    pytest.importorskip("lmms_eval")
    from lmms_eval.api.model import lmms

    class Knowing(lmms):  # type: ignore[misc]
        """Right about everything but what it was asked with OCR tokens."""

        is_simple = True

        def __init__(self) -> None:
            super().__init__()
            self.without_image: set[tuple[str, int]] = set()
            self.prompts: list[str] = []

        def generate_until(self, requests: list[Any]) -> list[str]:
            answers = []
            for request in requests:
                prompt, _, visual, number, task, split = request.args
                doc = self.task_dict[task][split][number]
                if not visual(doc):
                    self.without_image.add((task, number))
                right = said(task.removeprefix("local_"), doc)
                answers.append("wrong" if "OCR token" in prompt else right)
                self.prompts.append(prompt)
            return answers

        def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
            raise NotImplementedError

        def generate_until_multi_round(self, requests: list[Any]) -> list[str]:
            raise NotImplementedError

    model = Knowing()
    asked = VlmBenchmarks(tasks=write_tasks(tmp_path)).ask(model, tmp_path)
    outcomes = {name: SCORERS[name](records) for name, records in asked.items()}
    headlines = {name: o.measures[o.headline].value for name, o in outcomes.items()}
    assert headlines == pytest.approx(
        {"textvqa": 0, "sqa": 100, "realworldqa": 100, "pope": 100, "gqa": 100, "mme": 400}
    )
    assert outcomes["textvqa"].measures["accuracy"].value == 100
    assert len(outcomes["sqa"].measures["accuracy"].samples) == 3
    assert len(outcomes["sqa"].measures["accuracy-full"].samples) == 6
    listed = "What is 0?\nReference OCR token: stop, x\nAnswer the question using a single word or"
    assert any(p.startswith(listed) for p in model.prompts)
    assert any(p.startswith("What is 0?\nAnswer the question using") for p in model.prompts)
