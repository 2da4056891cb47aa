"""Only what was made of the run's own weights is told as the run's."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from openeupe.distillation.run_folder import Run
from openeupe.encoders.run_layout import FINISHED
from openeupe.errors import InputError
from openeupe.identity import file_identity
from openeupe.report.belonging import Belonging
from openeupe.report.deployment import deployed
from openeupe.report.gather import gather
from openeupe.report.page import write_report

from .conftest import Reported
from .test_page import Reader


@pytest.fixture
def run(reported: Reported, tmp_path: Path) -> Path:
    shutil.copytree(reported.run, tmp_path / "run")
    return tmp_path / "run"


def train_again(run: Path) -> None:
    """Give the last student other weights, as a training with another seed would."""
    (file,) = (run / "second" / "net").glob("model.safetensors")
    weights = load_file(file)
    key = next(key for key, value in weights.items() if value.is_floating_point())
    weights[key] += 0.5
    save_file(weights, file)
    ended = run / "second" / FINISHED
    about = json.loads(ended.read_text())
    about["files"][file.relative_to(ended.parent).as_posix()] = file_identity(file)
    ended.write_text(json.dumps(about))


def test_results_of_other_weights_are_not_this_runs(run: Path) -> None:
    assert [e.label for e in gather(run).evaluations] == ["this run"]
    train_again(run)
    story = gather(run)
    assert story.evaluations == []
    assert "evaluations/small is not shown" in story.left_out[0]
    text = Reader(write_report(run)).text
    assert "not of the encoder that is there now" in text
    assert "Not evaluated yet" in text


def test_results_of_other_heads_are_not_this_runs(run: Path) -> None:
    """As when a proxy was trained again, whose heads lie between the student and the experts."""
    (folder,) = run.glob("evaluations/*")
    content = json.loads((folder / "results.json").read_text())
    content["benchmarks"]["knn"]["encoder"]["heads"] = {"hed": "0123"}
    for file, written in (("results", content), ("benchmarks/knn", content["benchmarks"]["knn"])):
        (folder / f"{file}.json").write_text(json.dumps(written))
    story = gather(run)
    assert story.evaluations == []
    assert "not of the encoder that is there now" in story.left_out[0]


def test_exports_of_other_weights_are_not_this_runs(run: Path) -> None:
    train_again(run)
    tables, left_out = deployed(run, Belonging(Run.open(run)))
    assert tables == []
    assert left_out == [
        "deploy/onnx is not shown: it was not made of a student that is here now. Export again."
    ]
    assert "deploy/onnx is not shown" in Reader(write_report(run)).text


def test_latencies_of_another_export_are_not_shown(run: Path) -> None:
    file = run / "deploy" / "onnx" / "export.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"precision": "int8"}))
    (exports,), left_out = deployed(run, Belonging(Run.open(run)))
    assert exports.rows[0][:3] == ["deploy/onnx", "onnx", "int8"]
    assert "deploy/onnx/latency.json is not shown" in left_out[0]
    (file.parent / "latency.json").write_text("{")
    _, left_out = deployed(run, Belonging(Run.open(run)))
    assert "deploy/onnx/latency.json is not shown: it is damaged" in left_out[0]


@pytest.mark.parametrize(("key", "word"), [("protocol_hash", "settings"), ("data", "data")])
def test_benchmarks_of_other_settings_or_data_do_not_stand_side_by_side(
    reported: Reported, tmp_path: Path, key: str, word: str
) -> None:
    pixels = tmp_path / "pixels"
    shutil.copytree(reported.run.parent.parent / "pixels", pixels)
    content = json.loads((pixels / "results.json").read_text())
    other = content["benchmarks"]["other"]
    if key == "data":
        other["data"] = ["another"]
    else:
        other["benchmark"][key] = "another"
    for file, written in (("results", content), ("benchmarks/other", other)):
        (pixels / f"{file}.json").write_text(json.dumps(written))
    story = gather(reported.run, [pixels])
    ours, theirs = story.evaluations
    assert set(ours.results.benchmarks) == {"knn", "other", "third"}
    assert set(theirs.results.benchmarks) == {"knn", "third"}
    assert story.left_out == [
        f"other of raw_pixels is not shown: it was evaluated with other {word} than this run. "
        "Evaluate both again."
    ]


def test_two_results_of_one_name_have_labels_of_their_own(
    reported: Reported, tmp_path: Path
) -> None:
    pixels = [tmp_path / "a", tmp_path / "b"]
    for folder in pixels:
        shutil.copytree(reported.run.parent.parent / "pixels", folder)
    labels = [e.label for e in gather(reported.run, pixels).evaluations]
    assert labels == ["this run", *(f"raw_pixels ({folder})" for folder in pixels)]


def test_references_are_shown_before_the_runs_own(reported: Reported, run: Path) -> None:
    """Results of encoders that are not the run's, which lie in `RUN/references/NAME`."""
    pixels = reported.run.parent.parent
    shutil.copytree(pixels / "pixels", run / "references" / "raw" / "evaluations" / "small")
    assert [e.label for e in gather(run).evaluations] == ["raw", "this run"]
    train_again(run)
    assert [e.label for e in gather(run).evaluations] == ["raw"]


def test_a_run_whose_student_is_damaged_is_told(run: Path) -> None:
    (run / "second" / "net" / "model.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match="model"):
        gather(run)
