"""lmms-eval asks a tiny model of ours; everything here needs lmms-eval (extra `vlm-bench`)."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("lmms_eval")

from openeupe.encoders import create
from openeupe.errors import InputError
from openeupe.evaluation.vlm.language import tiny_language
from openeupe.evaluation.vlm.lmms import OpenEupeVlm, manifest
from openeupe.evaluation.vlm.model import Form, VisionLanguage
from tests.evaluation.vlm.local_tasks import documents, picture, write_tasks

SUFFIX = "\nAnswer the question using a single word or phrase."


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model: it babbles, always the same."""
    words = ["yes no cat dog A B what is the answer to this question 1 2 3 4 5"]
    language, tokenizer = tiny_language(words, width=32, layers=1, rare=0.0)
    encoder = create("vit_tiny_patch16_224", depth=1, img_size=32)
    model = VisionLanguage(language, tokenizer, 192, Form(template="bare"), encoder=encoder)
    return model.save(tmp_path_factory.mktemp("vlm"))


def test_lmms_eval_finds_it_by_name() -> None:
    made = manifest()
    assert made.model_id == "openeupe"
    assert made.simple_class_path == "openeupe.evaluation.vlm.lmms.OpenEupeVlm"
    if "openeupe" not in entry_points(group="lmms_eval.models").names:
        pytest.skip("the package was installed before it had the entry point")
    from lmms_eval.models import get_model

    assert get_model("openeupe") is OpenEupeVlm


def test_answers_the_tasks_from_outside(folder: Path, tmp_path: Path) -> None:
    """`lmms-eval --model openeupe --model_args pretrained=FOLDER`, as a function."""
    from lmms_eval import evaluator
    from lmms_eval.models import MODEL_REGISTRY_V2
    from lmms_eval.tasks import TaskManager

    MODEL_REGISTRY_V2.register_manifest(manifest(), overwrite=True)
    names = write_tasks(tmp_path)
    tasks = [names[benchmark] for benchmark in ("gqa", "mme", "sqa", "realworldqa", "pope")]
    found = evaluator.simple_evaluate(
        model="openeupe",
        model_args=f"pretrained={folder},batch_size=4,device=cpu",
        tasks=tasks,
        task_manager=TaskManager("ERROR", include_path=str(tmp_path)),
        bootstrap_iters=0,
        verbosity="ERROR",
    )
    direct = VisionLanguage.load(folder)
    for n, sample in enumerate(found["samples"]["local_gqa"]):
        alone = direct.generate([picture(n)], [f"what is {n}?{SUFFIX}"], max_new_tokens=16)
        assert sample["filtered_resps"] == [alone[0].split("\n\n")[0]]
    assert len({s["filtered_resps"][0] for s in found["samples"]["local_gqa"]}) > 1
    for benchmark in ("mme", "sqa", "realworldqa", "pope"):
        assert len(found["samples"][names[benchmark]]) == len(documents(benchmark))
    score = found["results"]["local_gqa"]["exact_match,none"]
    assert 0 <= score <= 1


def request(prompt: str, number: int, **settings: Any) -> SimpleNamespace:
    visual = lambda doc: [doc["image"]] if doc["image"] else []  # noqa: E731
    return SimpleNamespace(args=(prompt, settings, visual, number, "t", "test"))


def test_order_lengths_and_endings(folder: Path) -> None:
    model = OpenEupeVlm(str(folder), batch_size=3, device="cpu", max_new_tokens=5)
    model.task_dict = {"t": {"test": [{"image": picture(n)} for n in range(5)] + [{"image": None}]}}
    lengths = [8, 8, 2, 8, None, 8]
    requests = [
        request(f"what is {n}?", n, **({"max_new_tokens": length} if length else {}))
        for n, length in enumerate(lengths)
    ]
    answers = model.generate_until(requests)
    direct = VisionLanguage.load(folder)
    for n, length in enumerate(lengths):
        image = picture(n) if n < 5 else None
        assert answers[n] == direct.generate([image], [f"what is {n}?"], length or 5)[0]
    assert model.without_image == {("t", 5)}
    end = answers[0].split()[1]
    (cut,) = model.generate_until([request("what is 0?", 0, max_new_tokens=8, until=[end])])
    assert cut == answers[0].split(end)[0].strip() != answers[0]


def test_refuses_what_it_cannot_do(folder: Path) -> None:
    model = OpenEupeVlm(str(folder), device="cpu")
    model.task_dict = {"t": {"test": [{"image": picture(0)}]}}
    with pytest.raises(InputError, match="task t asks for sampling"):
        model.generate_until([request("what?", 0, do_sample=True, temperature=0.7)])
    with pytest.raises(InputError, match="task t asks for sampling or beams"):
        model.generate_until([request("what?", 0, num_beams=3)])
    several = SimpleNamespace(args=("what?", {}, lambda doc: [picture(0)] * 2, 0, "t", "test"))
    with pytest.raises(InputError, match="about one image"):
        model.generate_until([several])
    with pytest.raises(NotImplementedError):
        model.loglikelihood([])
    with pytest.raises(InputError, match="no vision-language model"):
        OpenEupeVlm(str(folder / "none"), device="cpu")
