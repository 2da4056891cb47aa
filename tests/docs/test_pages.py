"""Settings, links and launches of README and docs hold; nothing is trained."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import torch
import yaml
from torch.distributed.run import get_args_parser
from typer.main import get_command

import openeupe
from openeupe.ablation.study import load_study
from openeupe.cli import app
from openeupe.distillation.recipe import Recipe, load_recipe
from openeupe.evaluation.suite import Suite, load_suite

from .pages import PAGES, ROOT, blocks, commands, typed


@pytest.mark.parametrize("block", blocks("yaml"))
def test_recipes_and_suites_are_valid(block: str, tmp_path: Path) -> None:
    raw = yaml.safe_load(block)
    path = tmp_path / "settings.yaml"
    path.write_text(block)
    loaded = load_suite(path) if "benchmarks" in raw else load_recipe(path)
    assert isinstance(loaded, Suite if "benchmarks" in raw else Recipe)
    assert raw["name"] == loaded.name


def test_suites_and_recipes_beside_the_docs_are_valid() -> None:
    for path in (ROOT / "docs" / "suites").glob("*.yaml"):
        assert load_suite(path).benchmarks
    for path in (ROOT / "docs" / "recipes").glob("*.yaml"):
        assert load_recipe(path).stages


def test_every_command_in_the_docs_is_typed_here() -> None:
    typed = {"evaluate", "compare", "look", "report", "demo", "plan", "export", "latency"}
    typed |= {"distill", "quickstart", "save", "push", "ablate", "curate"}
    assert {line.split()[1] for line in commands("")} <= typed


@pytest.mark.parametrize("line", commands("plan"))
def test_plans_run(line: str) -> None:
    assert "device-hours" in typed(line)


@pytest.mark.parametrize(  # without a recipe: tests/distillation/test_short.py
    "line", [line for line in commands("distill") if "--teacher" not in line]
)
def test_recipes_to_distil_are_there(line: str) -> None:
    """Real teachers are gigabytes: the recipe and its changes are read, not carried out."""
    _, _, recipe, *rest = shlex.split(line)
    changes = [word for word in rest if "=" in word]
    load_recipe(recipe, changes, allow_code="--allow-code" in rest)


def test_the_documented_teacher_is_an_encoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = next(p.values[0] for p in blocks("python") if p.values[0].startswith("# my_teachers"))
    (tmp_path / "my_teachers.py").write_text(block)
    monkeypatch.syspath_prepend(str(tmp_path))
    teacher = openeupe.load("python:my_teachers:Thumbnails", allow_code=True)
    tokens = teacher(torch.rand(2, 3, 32, 48))
    assert (tokens.cls.shape, tokens.patches.shape) == ((2, 3), (2, 3, 2, 3))


@pytest.mark.parametrize("line", commands("ablate"))
def test_studies_are_there(line: str) -> None:
    _, _, study, *rest = shlex.split(line)
    assert load_study(study, [word for word in rest if "=" in word]).recipes


def test_studies_beside_the_docs_are_valid() -> None:
    for path in (ROOT / "docs" / "studies").glob("*.yaml"):
        assert load_study(path).benchmarks


def launches() -> list[str]:
    """The lines of the bash blocks that start several processes."""
    lines = [line for block in blocks("bash") for line in block.values[0].splitlines()]
    return [line for line in lines if "torchrun" in line]


@pytest.mark.parametrize("line", launches())
def test_launches_reach_the_command_with_its_options(line: str) -> None:
    words = shlex.split(re.sub(r"\$\w+", "1", line))
    given = get_args_parser().parse_args(words[words.index("torchrun") + 1 :])
    assert given.module
    assert given.training_script == "openeupe"
    verb, recipe, *options = given.training_script_args
    if verb == "curate":
        command = get_command(app).commands[verb]  # type: ignore[attr-defined]
        assert command.make_context(verb, [recipe, *options]).params["images"] == [recipe]
        return
    assert verb == "distill"
    load_recipe(recipe)
    assert not options or options[0] == "--run"


def test_the_readmes_commands_are_where_ci_looks_for_them() -> None:
    text = (ROOT / "README.md").read_text()
    assert "pip install . && openeupe quickstart" in text
    assert re.search(r"<!-- test command -->\n```bash\n(.+)\n```", text)


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("material")
    command = ["mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "site" / "index.html").read_text()
    assert not re.search(r'(src|href)="https?://(?!squidfunk|arxiv|github)', page)


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
