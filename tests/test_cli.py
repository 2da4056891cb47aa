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

from openeupe.cli import app
from openeupe.errors import InputError


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    images = tmp_path / "images"
    images.mkdir()
    for i in range(6):
        Image.radial_gradient("L").resize((64, 48)).rotate(60 * i).save(images / f"{i}.png")
    stage: dict[str, Any] = {
        "teachers": {"vit": {"encoder": "test_vit", "pretrained": False, "resolution": 32}},
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


def call(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


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
        (["distill", "{recipe}", "--device", "cuda:77"], "--device cuda:77 cannot be used here"),
        (["distill", "{recipe}", "--device", "toaster"], "--device toaster cannot be used here"),
        (["distill", "{recipe}", "stages.one.students.net.resolution=33"], "use 32 or 64"),
        (["plan", "{recipe}", "--device", "abacus"], "--device abacus: use this, or one of"),
        (["quickstart", "--images", "/no/such/folder"], "--images /no/such/folder: no such folder"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    recipe: Path, arguments: list[str], message: str
) -> None:
    filled = [a.replace("{recipe}", str(recipe)) for a in arguments]
    ran = subprocess.run(
        [sys.executable, "-m", "openeupe", *filled], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 2
    assert ran.stdout == ""
    assert ran.stderr.startswith("error: ")
    assert message in ran.stderr
    assert ran.stderr.count("\n") == 1


def test_help_names_every_command_and_is_quick_to_come() -> None:
    text = call("--help")
    for command in ("quickstart", "distill", "plan"):
        assert command in text
        assert "Example" in call(command, "--help")
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, openeupe.cli; print('torch' in sys.modules)"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert loaded.stdout.strip() == "False"
