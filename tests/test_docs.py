"""What README and docs tell a reader to type is typed here."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
import yaml
from PIL import Image
from torch.distributed.run import get_args_parser
from typer.testing import CliRunner

from openeupe.cli import app
from openeupe.distill.recipe import Recipe, load_recipe
from openeupe.evaluate.suite import Suite, load_suite

from .conftest import FEW_STEPS, Quickstart
from .encoders.released_layout import write

ROOT = Path(__file__).parent.parent
KNN = "kind: knn, protocol: knn/test-v1, domain: image, short: 64, crop: 64, k: [3]"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(language: str) -> list[Any]:
    """The code blocks of a language, each named after its page."""
    fence = re.compile(rf"^```{language}\n(.*?)^```", re.S | re.M)
    return [
        pytest.param(block, id=f"{page.stem}-{i}")
        for page in PAGES
        for i, block in enumerate(fence.findall(page.read_text()))
    ]


def commands(verb: str) -> list[Any]:
    """The lines of the bash blocks that begin with `openeupe VERB`."""
    lines = [line for block in blocks("bash") for line in block.values[0].splitlines()]
    return list(dict.fromkeys(line for line in lines if line.startswith(f"openeupe {verb}")))


@pytest.mark.parametrize("block", blocks("yaml"))
def test_recipes_and_suites_are_valid(block: str, tmp_path: Path) -> None:
    raw = yaml.safe_load(block)
    path = tmp_path / "settings.yaml"
    path.write_text(block)
    loaded = load_suite(path) if "columns" in raw else load_recipe(path)
    assert isinstance(loaded, Suite if "columns" in raw else Recipe)
    assert raw["name"] == loaded.name


def test_suites_and_recipes_beside_the_docs_are_valid() -> None:
    for path in (ROOT / "docs" / "suites").glob("*.yaml"):
        assert load_suite(path).columns
    for path in (ROOT / "docs" / "recipes").glob("*.yaml"):
        assert load_recipe(path).stages


@pytest.mark.parametrize("line", [*commands("evaluate"), *commands("compare")])
def test_evaluations_run(
    line: str, quickstart: Quickstart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the suite cut to one small column: tests/evaluate/test_mini.py runs the others."""
    suite = tmp_path / "suite.yaml"
    data = "{layout: scenes, count: 12}"
    suite.write_text(f"{{name: cut, columns: {{knn: {{{KNN}, data: {data}}}}}}}")
    monkeypatch.chdir(quickstart.folder.parent.parent)
    words = [str(suite) if word == "mini" else word for word in shlex.split(line)]
    result = CliRunner().invoke(app, [*words[1:], "--device", "cpu"])
    assert result.exit_code == 0, result.output
    assert "knn" in result.output


@pytest.mark.parametrize("line", [*commands("look"), *commands("report"), *commands("demo")])
def test_looking_runs(
    line: str, quickstart: Quickstart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On small photos; what is served by the demo is built and not launched."""
    served: list[Any] = []
    monkeypatch.setattr("openeupe.report.seen._LARGEST_SIDE", 96)
    monkeypatch.setattr("openeupe.look.demo.build", lambda encoders, side: Served(served))
    (tmp_path / "runs").symlink_to(quickstart.folder.parent)
    (tmp_path / "photos").mkdir()
    for name in ("photo.jpg", "other.jpg", "photos/one.png", "photos/two.png"):
        Image.radial_gradient("L").convert("RGB").save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    words = shlex.split(line)[1:]
    cut = {"look": ["--side", "96"], "report": ["--out", "page.html"], "demo": []}[words[0]]
    result = CliRunner().invoke(app, [*words, *cut, "--device", "cpu"])
    assert result.exit_code == 0, result.output
    assert served == ["127.0.0.1"] if words[0] == "demo" else "wrote" in result.output


class Served:
    """Stands for the demo's page."""

    def __init__(self, served: list[Any]) -> None:
        self.served = served

    def launch(self, **settings: Any) -> None:
        self.served.append(settings["server_name"])


@pytest.fixture(scope="module")
def shared(quickstart: Quickstart) -> Path:
    """A folder with runs/quickstart, a released EUPE file, and what the docs save from them."""
    folder = quickstart.folder.parent.parent
    write(folder, "eupe_vit_t")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for line in commands("save"):
            result = CliRunner().invoke(app, shlex.split(line)[1:])
            assert result.exit_code == 0, result.output
    return folder


@pytest.mark.parametrize("line", commands("push"))
def test_pushes_reach_the_hub(line: str, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = MagicMock()
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: hub)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "token")
    monkeypatch.chdir(shared)
    result = CliRunner().invoke(app, shlex.split(line)[1:])
    assert result.exit_code == 0, result.output
    hub.create_repo.assert_called_once_with("OWNER/NAME", private=True, exist_ok=True)


def test_every_command_in_the_docs_is_typed_here() -> None:
    typed = {"evaluate", "compare", "look", "report", "demo", "plan", "export", "benchmark"}
    typed |= {"distill", "quickstart", "save", "push"}
    assert {line.split()[1] for line in commands("")} <= typed


@pytest.mark.parametrize("block", blocks("python"))
def test_python_runs(block: str, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shared)
    exec(block, {"images": torch.rand(2, 3, 128, 128)})


@pytest.mark.parametrize("line", commands("plan"))
def test_plans_run(line: str) -> None:
    result = CliRunner().invoke(app, shlex.split(line)[1:])
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("line", commands("export"))
def test_exports_run(line: str, quickstart: Quickstart, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(quickstart.folder.parent.parent)
    result = CliRunner().invoke(app, [*shlex.split(line)[1:], "--resolution", "64"])
    # A student of two steps may rightly be refused in int8; a trained one is not.
    refused = "--precision int8" in line and "parity failed" in result.output
    assert result.exit_code == (1 if refused else 0), result.output
    assert ("failed" if refused else "passed") in result.output


@pytest.mark.parametrize("line", commands("benchmark"))
def test_benchmarks_run(line: str, quickstart: Quickstart, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what `test_exports_run` has written."""
    monkeypatch.chdir(quickstart.folder.parent.parent)
    words = shlex.split(line)[1:]
    if not Path(words[1]).exists():
        pytest.skip("the export was not run in this process")
    result = CliRunner().invoke(app, [*words, "--threads", "1"], terminal_width=200)
    assert result.exit_code == 0, result.output
    assert "openvino int8" in result.output


@pytest.mark.parametrize("line", commands("distill"))
def test_recipes_to_distil_are_there(line: str) -> None:
    """Real teachers are gigabytes: the recipe and its changes are read, not carried out."""
    _, _, recipe, *rest = shlex.split(line)
    load_recipe(recipe, [word for word in rest if "=" in word])


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
    assert verb == "distill"
    load_recipe(recipe)
    assert not options or options[0] == "--run"


@pytest.mark.parametrize(  # the fixture runs it without options
    "line", [line for line in commands("quickstart") if line != "openeupe quickstart"]
)
def test_quickstarts_run(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openeupe.report.seen._LARGEST_SIDE", 128)
    monkeypatch.setattr("openeupe.quickstart._VIEWS", {"train": 12, "heldout": 4})
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FOLDER").mkdir()
    for i in range(24):
        Image.radial_gradient("L").rotate(15 * i).save(tmp_path / "FOLDER" / f"{i}.png")
    result = CliRunner().invoke(app, [*shlex.split(line)[1:], *FEW_STEPS])
    assert result.exit_code == 0, result.output
    assert "Next:" in result.output


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
