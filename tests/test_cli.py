"""The commands as a user types them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from openeupe.cli import app, main
from openeupe.errors import InputError
from openeupe.evaluation.records import EncoderIdentity
from openeupe.evaluation.results import Results
from tests.share.results import write_results

from .conftest import call
from .tiny_recipe import network


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    images = tmp_path / "images"
    images.mkdir()
    for i in range(6):
        Image.radial_gradient("L").resize((64, 48)).rotate(60 * i).save(images / f"{i}.png")
    stage: dict[str, Any] = {
        "teachers": {"vit": network("test_vit")},
        "students": {"net": {"encoder": "test_resnet", "resolution": 32}},
        "steps": 2,
        "batch_size": 2,
        "head_hidden": 8,
        "statistics": {"iterations": 1},
        "optimizer": {"lr": 0.001},
    }
    raw = {"name": "small", "data": {"sources": [{"path": str(images)}]}, "stages": {"one": stage}}
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


def test_distill_then_load(recipe: Path, tmp_path: Path) -> None:
    import openeupe

    output = call(
        "distill", recipe, "stages.one.steps=3", "--run", tmp_path / "run", "--device", "cpu"
    )
    assert "one 3/3" in output
    assert "Done" in output
    assert openeupe.load(tmp_path / "run").name == "test_resnet"
    with pytest.raises(InputError, match=r"steps: 3 then, 2 now"):
        call("distill", recipe, "--run", tmp_path / "run")


def test_plan_for_people_and_machines(recipe: Path) -> None:
    table = call("plan", recipe, "--device", "a100")
    assert "teacher vit" in table
    assert "device-hours" in table
    (stage,) = json.loads(call("plan", recipe, "--json"))
    assert stage["images"] == 4
    assert stage["teachers"][0]["parameters"] > 1000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["distill", "nowhere.yaml"], "no such file"),
        (["distill", "{recipe}", "stages.one.stepz=1"], "stepz: unknown key, did you mean steps?"),
        (["distill", "{recipe}", "--device", "cuda:77"], "device cuda:77 cannot be used here"),
        (["distill", "{recipe}", "--device", "toaster"], "device toaster cannot be used here"),
        (["distill", "{recipe}", "stages.one.students.net.resolution=33"], "use 32 or 64"),
        (["plan", "{recipe}", "--device", "abacus"], "device abacus: use this, or one of"),
        (["latency", "raw_pixels", "--threads", "two"], "--threads two: write it as 1 or 1,4"),
        (["export", "raw_pixels", "--to", "tflite"], "target tflite: use one of onnx"),
        (["export", "raw_pixels", "--precision", "bf16"], "onnx has no bf16"),
        (["export", "raw_pixels", "--resolution", "big"], "resolution big: write it as 256"),
        (["export", "raw_pixels", "--dynamic", "--resolution", "64"], "exclude each other"),
        (["quickstart", "--images", "/no/such/folder"], "images: /no/such/folder is no folder"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    recipe: Path,
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    filled = [a.replace("{recipe}", str(recipe)) for a in arguments]
    monkeypatch.setattr(sys, "argv", ["openeupe", *filled])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    _is_one_line(*capsys.readouterr(), message)


def test_a_mistake_in_a_process_of_its_own() -> None:
    """What libraries print when they are imported would show here."""
    command = [sys.executable, "-m", "openeupe", "export", "raw_pixels", "--resolution", "big"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    _is_one_line(ran.stdout, ran.stderr, "resolution big: write it as 256")


def _is_one_line(out: str, error: str, message: str) -> None:
    assert out == ""
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1


def test_debug_shows_where_a_mistake_was_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["openeupe", "plan", "nowhere", "--debug"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("Traceback")
    assert error.splitlines()[-1].startswith("error: recipe nowhere: no such file")


def test_version_help_and_completion() -> None:
    import openeupe

    assert call("--version") == f"openeupe {openeupe.__version__}\n"
    assert call("plan", "-h") == call("plan", "--help")
    shells = {"_OPENEUPE_COMPLETE": "complete_bash", "COMP_CWORD": "2"}
    for line, names in {
        "openeupe plan ": "direct\neupe\n",
        "openeupe evaluate --suite m": "mini",
    }.items():
        words = {**shells, "COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
        result = CliRunner().invoke(app, env=words, prog_name="openeupe")
        assert names in result.output


def test_no_colours_but_on_a_terminal(recipe: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "openeupe", "plan", str(recipe)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "device-hours" in ran.stdout
    assert "\x1b" not in ran.stdout


def test_json_is_all_that_standard_output_holds(tmp_path: Path) -> None:
    suite = tmp_path / "suite.yaml"
    suite.write_text(
        "{name: cut, benchmarks: {knn: {kind: knn, protocol: knn/test-v1, domain: image, "
        "short: 32, crop: 32, k: [3], data: {layout: scenes, count: 12}}}}"
    )
    folders = [tmp_path / "pixels", tmp_path / "net"]
    for folder, encoder in zip(folders, ("raw_pixels", "untrained:test_resnet"), strict=True):
        result = CliRunner().invoke(
            app, ["evaluate", encoder, "--suite", str(suite), "--out", str(folder), "--json",
                  "--device", "cpu"],
        )  # fmt: skip
        assert result.exit_code == 0, result.output
        told = json.loads(result.stdout)
        assert 0 <= told["benchmarks"]["knn"]["metrics"]["top1@3"]["value"] <= 100
    told = json.loads(call("compare", *folders, "--json"))
    assert [e["name"] for e in told["encoders"]] == ["raw_pixels", "untrained:test_resnet"]
    (benchmark,) = told["comparisons"][0]["benchmarks"]
    assert benchmark["verdict"] in ("better", "worse", "no difference shown")
    assert benchmark["gain"]["low"] <= benchmark["gain"]["delta"] <= benchmark["gain"]["high"]


def test_an_interrupted_command_exits_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("openeupe.api.distill.load_recipe", interrupt)
    assert CliRunner().invoke(app, ["plan", "eupe"]).exit_code == 130


def test_help_names_every_command() -> None:
    text = call("--help")
    for command in ("quickstart", "distill", "plan", "look", "export", "latency"):
        assert command in text
        assert "Example" in call(command, "--help")


@pytest.mark.parametrize(
    "command", [["-c", "import openeupe; dir(openeupe)"], ["-m", "openeupe", "--help"]]
)
def test_importing_and_help_load_no_heavy_library(command: list[str]) -> None:
    """Torch and its companions take seconds: they are imported by the command that needs them."""
    ran = subprocess.run(
        [sys.executable, "-X", "importtime", *command], capture_output=True, text=True, check=True
    )
    modules = {line.rsplit("|", 1)[-1].strip() for line in ran.stderr.splitlines()}
    assert "openeupe" in modules
    heavy = "torch torchvision timm matplotlib numpy scipy PIL pydantic yaml h5py transformers"
    assert not modules & set(heavy.split())


def test_every_public_name_can_be_imported() -> None:
    import openeupe

    assert set(openeupe.__all__) <= set(dir(openeupe))
    for name in openeupe.__all__:
        assert getattr(openeupe, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = openeupe.nothing


def test_compare_refuses_two_encoders_of_one_results_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second would have overwritten the first, and be found equal to it."""
    write_results(tmp_path, EncoderIdentity(identity="0", heads={}))
    opened = Results.open(tmp_path / "mini")
    monkeypatch.setattr("openeupe.api.evaluate.evaluate", lambda *_, **__: opened)
    with pytest.raises(InputError, match="a/b and a_b share the results folder"):
        call("compare", "a/b", "a_b")


def test_compare_refuses_options_that_saved_results_do_not_read(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "benchmarks").mkdir(parents=True)
        (tmp_path / name / "results.json").write_text("{}")
    options = {"--suite": "eupe", "--data": "d", "--precision": "bf16", "--device": "cpu"}
    for option, value in options.items():
        with pytest.raises(InputError, match=f"{option[2:]} has no effect on results folders"):
            call("compare", tmp_path / "a", tmp_path / "b", option, value)
