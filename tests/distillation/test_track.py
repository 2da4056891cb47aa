"""Trackers: the same numbers reach each of them, and a resumed stage goes on in the same run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from openeupe.distillation.check import check_recipe
from openeupe.distillation.recipe import Recipe
from openeupe.distillation.run import run_recipe
from openeupe.distillation.track import open_tracker
from openeupe.errors import InputError

NAMES = ["wandb", "trackio", "mlflow"]


class Fake(ModuleType):
    """Stands for wandb, trackio and mlflow; writes down what it is asked."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.begun: list[dict[str, Any]] = []
        self.ended = 0

    def init(self, **told: Any) -> None:
        self.begun.append(told)

    def log(self, values: dict[str, float], step: int) -> None:
        self.logged.append((step, values))

    log_metrics = log

    def finish(self) -> None:
        self.ended += 1

    end_run = finish

    def set_tracking_uri(self, uri: str) -> None:
        assert uri.startswith("sqlite:///")

    def set_experiment(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(experiment_id=name)

    def start_run(self, **told: Any) -> SimpleNamespace:
        self.begun.append(told)
        return SimpleNamespace(info=SimpleNamespace(run_id="abc"))


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_names_its_tracker(
    name: str, raw_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = Fake(name)
    monkeypatch.setitem(sys.modules, name, fake)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    raw_recipe["stages"] = {"proxy": raw_recipe["stages"]["proxy"]}
    recipe = Recipe.model_validate({**raw_recipe, "tracker": name})
    run_recipe(recipe, tmp_path / "run")
    assert [step for step, _ in fake.logged] == [3, 6]
    assert fake.logged[0][1]["loss/vit/cls"] > 0
    assert fake.ended == 1
    assert not (tmp_path / "run" / "proxy" / "tensorboard").exists()


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_resumed_stage_goes_on_in_its_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = Fake(name)
    monkeypatch.setitem(sys.modules, name, fake)
    for first in (0, 3):
        open_tracker(name, tmp_path, "tiny", "proxy", first).close()  # type: ignore[arg-type]
    first_run, second_run = fake.begun
    if name == "wandb":
        assert first_run["id"] == second_run["id"]
        assert first_run["resume"] == "allow"
    else:
        assert second_run == {"run_id": "abc"}


def test_a_tracker_that_is_not_installed_is_told_before_any_work(
    raw_recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    recipe = Recipe.model_validate({**raw_recipe, "tracker": "mlflow"})
    with pytest.raises(InputError, match=r"tracker mlflow is not installed: pip install"):
        check_recipe(recipe)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_real_trackers_take_it_without_a_network(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read when trackio is imported
    pytest.importorskip(name)
    for first in (0, 3):
        tracker = open_tracker(name, tmp_path, "tiny", "proxy", first)  # type: ignore[arg-type]
        for step in range(first, first + 3):
            tracker.log({"loss/vit/cls": 0.5}, step + 1)
        tracker.close()
    assert sum(path.is_file() for path in tmp_path.rglob("*")) > 1


@pytest.mark.skipif(sys.platform == "win32", reason="a system without limits of file sizes")
def test_a_full_disk_under_tensorboard_is_one_line(tmp_path: Path) -> None:
    """TensorBoard writes in a thread: its own traceback would be all that is seen."""
    script = """
import resource, sys, time
from pathlib import Path
import openeupe.distillation.recipe
from openeupe.cli import main
from openeupe.distillation.track import open_tracker
folder = Path(sys.argv[1])
def fill(*_, **__):
    board = open_tracker("tensorboard", folder, "run", "stage", 0)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
    for step in range(10_000):
        board.log({"a": 1.0}, step)
        time.sleep(0.001)
openeupe.distillation.recipe.load_recipe = fill
sys.argv = ["openeupe", "plan", "eupe"]
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1, done.stderr
    assert "tensorboard" in done.stderr
    assert "File too large" in done.stderr
