"""`--suite mini` from end to end, every benchmark, on a distilled student; cut to seconds."""

from __future__ import annotations

from pathlib import Path

import pytest

from openeupe.errors import InputError
from openeupe.evaluation.results import Results

from ..conftest import Quickstart, call

# What makes the suite a matter of seconds. Its scores mean nothing then; its path is the same.
CUT = [
    "benchmarks.knn.data.count=24",
    "benchmarks.zero_shot.data.count=24",
    "benchmarks.zero_shot_ridge.data.count=24",
    *(
        f"benchmarks.{dense}.{setting}"
        for dense in ("segmentation", "depth", "boundaries")
        for setting in ("data.count=6", "data.test_count=4", "seeds=2")
    ),
    "benchmarks.segmentation.variant.steps=3",
    "benchmarks.depth.variant.steps=3",
    "benchmarks.boundaries.steps=3",
    "benchmarks.text.steps=3",
    "benchmarks.text.seeds=2",
    "benchmarks.text.data.train_count=6",
    "benchmarks.text.data.test_count=4",
    "benchmarks.correspondence.data.count=24",
    "benchmarks.correspondence.pairs_per_category=2",
    "benchmarks.vlm.data.count=6",
    "benchmarks.vlm.data.test_count=4",
    "benchmarks.vlm.alignment.steps=2",
    "benchmarks.vlm.seeds=2",
    "benchmarks.vlm.untrained=test_vit",
]
BENCHMARKS = {
    "knn", "zero_shot", "zero_shot_ridge", "segmentation", "depth", "correspondence", "text",
    "boundaries", "vlm-exist", "vlm-count", "vlm-attribute", "vlm-spatial", "vlm-read",
    "vlm-choose",
}  # fmt: skip


@pytest.fixture(scope="module")
def evaluated(quickstart: Quickstart) -> Path:
    """The quickstart's student, evaluated on the cut suite."""
    output = call("evaluate", quickstart.folder, *CUT, "--device", "cpu")
    for name in ("knn", "depth", "vlm-exist"):
        assert name in output
    return quickstart.folder / "evaluations" / "mini"


def test_every_benchmark_has_a_score(evaluated: Path) -> None:
    results = Results.open(evaluated)
    assert set(results.benchmarks) == BENCHMARKS
    for name, benchmark in results.benchmarks.items():
        score = benchmark.score  # zero-shot, too: by the chain of heads
        assert score is not None, name
        assert None not in (score.low, score.value, score.high), name
        assert score.low <= score.value <= score.high, name  # type: ignore[operator]
        assert benchmark.data, name
    assert len(results.benchmarks["depth"].metrics["rmse"].per_seed) == 2


def test_answers_are_kept(evaluated: Path) -> None:
    assert (evaluated / "samples_vlm-exist.jsonl").read_text().count("\n") > 2


def test_a_second_call_does_nothing_again(evaluated: Path, quickstart: Quickstart) -> None:
    output = call("evaluate", quickstart.folder, *CUT, "--device", "cpu")
    assert output.count(", already evaluated") == 9


def test_compare_says_what_is_noise(evaluated: Path) -> None:
    output = call("compare", evaluated, evaluated, "--markdown")
    assert "| knn top1@10 |" in output
    assert "is better on 0 benchmarks, worse on 0; no difference shown on 14" in output


def test_compare_needs_two(evaluated: Path) -> None:
    with pytest.raises(InputError, match="needs two encoders"):
        call("compare", evaluated)
