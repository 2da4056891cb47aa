"""What a study finds in its folder is used only for the same settings, encoders and data."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

import openeupe
from openeupe.ablation.inputs import check_inputs
from openeupe.ablation.report import report
from openeupe.ablation.running import Place, run_study
from openeupe.ablation.study import load_study
from openeupe.ablation.study_results import StudyResults
from openeupe.encoders import create, save
from openeupe.errors import InputError
from openeupe.evaluation.knn import Knn
from tests.lines import Lines


@pytest.fixture
def evaluated(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The k of every benchmark that is carried out."""
    calls: list[tuple[int, ...]] = []
    real = Knn.run
    monkeypatch.setattr(Knn, "run", lambda *given: calls.append(given[0].k) or real(*given))
    return calls


@pytest.fixture
def place(colors: Path, tmp_path: Path) -> Place:
    """A copy of the images, to be changed."""
    shutil.copytree(colors / "colors", tmp_path / "data" / "colors")
    return Place(tmp_path / "out", tmp_path / "data", "cpu")


def write(colors: Path, tmp_path: Path, k: int = 1, **arms: str) -> Path:
    """A study that trains nothing."""
    suite = yaml.safe_load((colors / "suite.yaml").read_text())
    suite["benchmarks"]["knn"]["k"] = [k]
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump(suite))
    study = {"name": "tiny", "suite": "suite.yaml", "tables": {"t": {"rows": list(arms)}},
             "arms": {arm: {"encoder": encoder} for arm, encoder in arms.items()}}  # fmt: skip
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(study))
    return file


def test_other_settings_and_another_encoder_are_evaluated_again(
    colors: Path, tmp_path: Path, place: Place, evaluated: list[Any]
) -> None:
    first = {"a": "untrained:test_vit", "b": "raw_pixels"}
    run_study(load_study(write(colors, tmp_path, **first)), place)
    run_study(load_study(write(colors, tmp_path, **first)), place)
    assert evaluated == [(1,), (1,)]
    run_study(load_study(write(colors, tmp_path, 3, **first)), place)
    assert evaluated[2:] == [(3,), (3,)]
    other = load_study(write(colors, tmp_path, 3, a="untrained:test_resnet", b="raw_pixels"))
    run_study(other, place)
    assert evaluated[4:] == [(3,)]


def test_a_stored_encoder_that_was_replaced_is_evaluated_again(
    colors: Path, tmp_path: Path, place: Place, evaluated: list[Any]
) -> None:
    loaded = load_study(write(colors, tmp_path, a=str(tmp_path / "encoder")))
    for _ in range(2):
        save(create("test_vit"), tmp_path / "encoder")
        run_study(loaded, place)
        shutil.rmtree(tmp_path / "encoder")
    assert len(evaluated) == 2


def test_changed_images_and_another_precision_are_evaluated_again(
    colors: Path, tmp_path: Path, place: Place, evaluated: list[Any]
) -> None:
    file = write(colors, tmp_path, a="raw_pixels")
    run_study(load_study(file), place)
    Image.fromarray(np.full((40, 40, 3), 9, np.uint8)).save(place.data / "colors/test/red/0.png")
    run_study(load_study(file), place)
    run_study(load_study(file, ["evaluation.precision=bf16"]), place)
    assert len(evaluated) == 3


def test_tables_leave_out_and_name_what_is_of_other_settings(
    colors: Path, tmp_path: Path, place: Place
) -> None:
    run_study(load_study(write(colors, tmp_path, a="raw_pixels")), place)
    content = report(StudyResults(load_study(write(colors, tmp_path, 3, a="raw_pixels")), place))
    assert content["arms"]["a"]["benchmarks"] == {}
    assert content["stale"] == ["a, seed 0: knn"]
    assert "a, seed 0: knn. Run the study again." in (place.out / "tables-tiny.md").read_text()


def test_tables_leave_out_and_name_what_is_of_another_encoder(
    colors: Path, tmp_path: Path, place: Place
) -> None:
    """Drawn without a run: `--no-run`."""
    loaded = load_study(write(colors, tmp_path, a=str(tmp_path / "encoder"), b="raw_pixels"))
    save(create("test_vit"), tmp_path / "encoder")
    run_study(loaded, place)
    assert report(StudyResults(loaded, place))["stale"] == []
    shutil.rmtree(tmp_path / "encoder")
    save(create("test_vit"), tmp_path / "encoder")  # other random weights
    content = report(StudyResults(loaded, place))
    assert content["arms"]["a"]["benchmarks"] == {}
    assert content["stale"] == ["a, seed 0: knn"]
    assert list(content["arms"]["b"]["benchmarks"]) == ["knn"]
    shutil.rmtree(tmp_path / "encoder")
    content = report(StudyResults(loaded, place))
    assert "a, seed 0: knn (its encoder cannot be opened" in content["stale"][0]


def test_samples_of_another_evaluation_are_evaluated_again_or_refused(
    colors: Path, tmp_path: Path, place: Place, evaluated: list[Any]
) -> None:
    loaded = load_study(write(colors, tmp_path, a="untrained:test_vit", b="raw_pixels"))
    run_study(loaded, place)
    (file,) = place.out.glob("encoders/a-*/colors/benchmarks/knn.npz")
    with np.load(file) as arrays:
        wrong = {name: 0 * a if name.endswith("sums") else a for name, a in arrays.items()}
    np.savez_compressed(file, **wrong)
    with pytest.raises(InputError, match=r"knn\.npz is damaged or not what .*evaluate again"):
        report(StudyResults(loaded, place))
    run_study(loaded, place)
    assert len(evaluated) == 3
    report(StudyResults(loaded, place))


def test_a_damaged_student_is_not_evaluated(
    raw_study: dict[str, Any], study_file: Path, place: Place
) -> None:
    raw_study["arms"] = {"direct": raw_study["arms"]["direct"]}
    raw_study["tables"] = {}
    study_file.write_text(yaml.safe_dump(raw_study, sort_keys=False))
    loaded = load_study(study_file, ["seeds=[0]"])
    assert run_study(loaded, place) == []
    (stage,) = place.out.glob("stages/student-*")
    for name in ("model.safetensors", "heads.safetensors"):
        file = stage / "all" / name
        whole = file.read_bytes()
        middle = len(whole) // 2
        file.write_bytes(whole[:middle] + bytes(64) + whole[middle + 64 :])
        (failed,) = run_study(loaded, place)
        assert f"{stage.name}/all/{name} is damaged" in failed
        assert f"or delete {stage} and give the command" in failed
        content = report(
            StudyResults(loaded, place)
        )  # the tables of the rest are drawn all the same
        assert "its encoder cannot be opened" in content["stale"][0]
        file.write_bytes(whole)
    assert run_study(loaded, place) == []
    shutil.rmtree(place.out / "runs")  # what links the stages is made again
    assert run_study(loaded, place) == []
    assert report(StudyResults(loaded, place))["stale"] == []


def test_studies_that_share_a_folder_each_have_their_results(
    colors: Path, tmp_path: Path, place: Place
) -> None:
    for name, arm in (("first", "a"), ("second", "b")):
        loaded = load_study(write(colors, tmp_path, **{arm: "raw_pixels"}), [f"name={name}"])
        run_study(loaded, place)
        report(StudyResults(loaded, place))
    for name, arm in (("first", "a"), ("second", "b")):
        content = json.loads((place.out / f"results-{name}.json").read_text())
        assert (content["study"], list(content["arms"])) == (name, [arm])
        assert f"# {name}" in (place.out / f"tables-{name}.md").read_text()


def test_arms_of_unequal_data_are_not_compared(colors: Path, tmp_path: Path, place: Place) -> None:
    loaded = load_study(write(colors, tmp_path, a="untrained:test_vit", b="raw_pixels"))
    run_study(loaded, place)
    (file,) = place.out.glob("encoders/b-*/colors/benchmarks/knn.json")
    saved = json.loads(file.read_text())
    file.write_text(json.dumps({**saved, "data": ["of", "others"]}))
    with pytest.raises(InputError, match=r"benchmark knn: .*evaluated with other data"):
        report(StudyResults(loaded, place))


def test_other_images_do_not_take_finished_stages(
    study_file: Path, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_study(study_file, ["seeds=[0]"])
    check_inputs(loaded, place.data, place.out)
    check_inputs(loaded, place.data, place.out)
    moved = tmp_path / "moved"
    place.data.rename(moved)
    check_inputs(loaded, moved, place.out)  # the same images elsewhere
    file = moved / "colors/train/red/0.png"
    Image.fromarray(np.asarray(Image.open(file))[::-1].copy()).save(file)
    with pytest.raises(InputError, match=r"images colors/train is not what the stages in .*`out`"):
        check_inputs(loaded, moved, place.out)


def test_one_path_of_two_kinds_is_two_sets_of_images(
    raw_study: dict[str, Any], study_file: Path, place: Place
) -> None:
    shards = place.data / "colors/train/0.tar"
    with tarfile.open(shards, "w") as archive:
        archive.add(place.data / "colors/train/red/0.png", "0.png")
    for name, kind in (("two", "folder"), ("three", "folder"), ("direct", "shards")):
        source = {"path": "colors/train", "kind": kind}
        raw_study["recipes"][name]["data"] = {"sources": [source]}
    study_file.write_text(yaml.safe_dump(raw_study, sort_keys=False))
    loaded = load_study(study_file, ["seeds=[0]"])
    check_inputs(loaded, place.data, place.out)
    with tarfile.open(shards, "w") as archive:
        archive.add(place.data / "colors/train/red/1.png", "0.png")
    with pytest.raises(InputError, match="images colors/train as shards is not what the stages"):
        check_inputs(loaded, place.data, place.out)


def test_another_stored_teacher_does_not_take_finished_stages(
    raw_study: dict[str, Any], study_file: Path, place: Place, tmp_path: Path
) -> None:
    teacher = {"encoder": str(tmp_path / "teacher"), "resolution": 32}
    for recipe in raw_study["recipes"].values():
        for stage in recipe["stages"].values():
            if "vit" in stage["teachers"]:
                stage["teachers"]["vit"] = teacher
    study_file.write_text(yaml.safe_dump(raw_study, sort_keys=False))
    loaded = load_study(study_file, ["seeds=[0]"])
    save(create("test_vit"), tmp_path / "teacher")
    check_inputs(loaded, place.data, place.out)
    shutil.rmtree(tmp_path / "teacher")
    save(create("test_vit"), tmp_path / "teacher")
    with pytest.raises(InputError, match=r"encoder .*teacher is not what the stages"):
        check_inputs(loaded, place.data, place.out)


def test_stages_of_unknown_images_are_not_taken(study_file: Path, place: Place) -> None:
    (place.out / "stages/proxy-0123").mkdir(parents=True)
    with pytest.raises(InputError, match="unknown what the stages in"):
        run_study(load_study(study_file), place)


def test_a_study_goes_on_in_the_precision_that_it_was_begun_in(
    raw_study: dict[str, Any], study_file: Path, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw_study["arms"] = {"no_vit": raw_study["arms"]["no_vit"]}
    raw_study["tables"] = {}
    study_file.write_text(yaml.safe_dump(raw_study, sort_keys=False))
    for number, precision in enumerate(("fp32", "bf16")):  # what each machine has instructions for
        for module in ("ablation.inputs", "distillation.precision"):
            monkeypatch.setattr(
                f"openeupe.{module}.resolve_precision",
                lambda asked, _, here=precision: here if asked == "auto" else asked,
            )
        log = Lines()
        loaded = load_study(study_file, [f"seeds=[{number}]"])
        assert not run_study(loaded, place, progress=log)
    ended = place.out.glob("stages/*/finished.json")
    found = [json.loads(path.read_text())["precision"] for path in ended]
    assert found == 2 * [{"teachers": "fp32", "students": "fp32"}]
    assert "precision auto is fp32, as where" in log.text


def test_a_seed_given_twice_is_refused(colors: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="one seed twice is one run"):
        load_study(write(colors, tmp_path, a="raw_pixels"), ["seeds=[0, 1, 0]"])


def test_a_stage_of_an_encoder_that_exists_is_refused(colors: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="stage and student are of a recipe"):
        load_study(write(colors, tmp_path, a="raw_pixels"), ["arms.a.stage=proxy"])


def test_benchmarks_that_fill_several_are_refused(colors: Path, tmp_path: Path) -> None:
    file = write(colors, tmp_path, a="raw_pixels")
    with pytest.raises(InputError, match="benchmark vlm fills several"):
        load_study(file, ["suite=mini"])


def test_a_precision_that_an_exported_arm_does_not_have_is_refused(
    colors: Path, tmp_path: Path, place: Place
) -> None:
    """It would be called bf16 in the tables, and be what its file computes in."""
    pytest.importorskip("onnxruntime")
    openeupe.export(create("raw_pixels"), "onnx", tmp_path / "export")
    file = write(colors, tmp_path, a=str(tmp_path / "export"))
    (failed,) = run_study(load_study(file, ["evaluation.precision=bf16"]), place)
    assert "evaluation.precision: " in failed
    assert "has the precision that it was exported with" in failed
