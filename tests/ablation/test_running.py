"""A tiny study is trained, evaluated, compared; finished work is kept, cut-off work resumes."""

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from openeupe.ablation import running
from openeupe.ablation.addresses import link_run
from openeupe.ablation.report import report
from openeupe.ablation.running import Place, run_study
from openeupe.ablation.study import LoadedStudy, load_study
from openeupe.ablation.study_results import StudyResults
from openeupe.cli import app
from openeupe.errors import InputError
from openeupe.evaluation.knn import Knn
from tests.lines import Lines

from ..data.test_workers import alive
from ..test_stopping import until


def run(study: Path, out: Path, data: Path, *words: str) -> Any:
    line = ["ablate", str(study), "--out", str(out), "--data", str(data), "--device", "cpu", *words]
    return CliRunner().invoke(app, line)


def scores(loaded: LoadedStudy, place: Place) -> Any:
    report(StudyResults(loaded, place))
    return json.loads((place.out / "results-tiny.json").read_text())["arms"]


def test_a_study_from_file_to_tables(
    raw_study: dict[str, Any],
    study_file: Path,
    colors: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    raw_study["tables"]["adds"] = {
        "effects": {"net": [["direct", "no_net"]], "later": [["1&2", "direct"], ["1&2&3", "1&2"]]}
    }
    study_file.write_text(yaml.safe_dump(raw_study, sort_keys=False))
    out = tmp_path / "out"
    result = run(study_file, out, colors)
    assert result.exit_code == 0, result.output
    # Two seeds of: one proxy, one student of it, one finetuned, one family.
    assert len(list((out / "stages").iterdir())) == 8
    content = json.loads((out / "results-tiny.json").read_text())
    arms = content["arms"]
    assert {name: arm["seeds"] for name, arm in arms.items()} == {
        "direct": 2, "no_vit": 2, "no_net": 2, "1&2": 2, "1&2&3": 2, "pixels": 1
    }  # fmt: skip
    assert arms["1&2"]["cost"]["images"] == 12
    assert arms["1&2"]["cost"]["all_images"] == 24
    assert arms["1&2&3"]["cost"]["images"] == 24  # of both stages that taught it
    assert arms["no_vit"]["cost"]["petaflops"] < arms["direct"]["cost"]["petaflops"]
    assert arms["pixels"]["cost"] is None
    rows = content["tables"]["stages"]
    assert {row["row"] for row in rows} == {"1&2", "1&2&3", "pixels"}
    assert all(row["power"]["resolvable"] >= 0 for row in rows if row["row"] != "pixels")
    tables = (out / "tables-tiny.md").read_text()
    assert "| 1&2&3 | 24 | 36 |" in tables
    effects = {row["row"]: row["gain"]["delta"] for row in content["tables"]["adds"]}
    value = {name: arm["benchmarks"]["knn"]["value"] for name, arm in arms.items()}
    assert effects["net"] == pytest.approx(value["direct"] - value["no_net"])
    assert effects["later"] == pytest.approx((value["1&2&3"] - value["direct"]) / 2)
    assert "Mean difference of the pairs" in tables
    assert "| later | knn |" in tables

    def nothing(*_: object) -> None:
        raise AssertionError("was made again")

    monkeypatch.setattr(running, "_train", nothing)
    monkeypatch.setattr(Knn, "run", nothing)
    moved = tmp_path / "moved"
    out.rename(moved)
    again = run(study_file, moved, colors, "--json")
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["arms"] == arms


def test_a_killed_study_goes_on_to_the_same_scores(
    study_file: Path, colors: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_study(study_file, ["seeds=[0]"])
    whole, cut = (Place(tmp_path / name, colors, "cpu") for name in ("whole", "cut"))
    assert run_study(loaded, whole) == []
    real, left = running.run_recipe, [2]

    def killed(*given: Any, **named: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return real(*given, **named)

    monkeypatch.setattr(running, "run_recipe", killed)
    with pytest.raises(KeyboardInterrupt):
        run_study(loaded, cut)
    monkeypatch.setattr(running, "run_recipe", real)
    so_far = report(StudyResults(loaded, cut))
    assert so_far["arms"]["1&2&3"]["seeds"] == 0
    assert so_far["arms"]["direct"]["seeds"] == 1
    assert run_study(loaded, cut) == []
    assert scores(loaded, whole) == scores(loaded, cut)


@pytest.mark.slow
def test_processes_side_by_side_make_the_same(
    study_file: Path, colors: Path, tmp_path: Path
) -> None:
    loaded = load_study(study_file)
    places = [Place(tmp_path / name, colors, "cpu") for name in ("one", "three")]
    for place, jobs in zip(places, (1, 3), strict=True):
        assert run_study(loaded, place, jobs) == []
    assert scores(loaded, places[0]) == scores(loaded, places[1])


def begun(study_file: Path, out: Path, data: Path) -> subprocess.Popen[str]:
    """A study in two processes, once the first stage has begun."""
    words = ["ablate", study_file, "--out", out, "--data", data, "--device", "cpu", "--jobs", "2"]
    child = subprocess.Popen([sys.executable, "-m", "openeupe", *map(str, words)], text=True,
                             stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)  # fmt: skip
    lock = out / ".lock"
    until(lambda: lock.is_file() and str(child.pid) in lock.read_text())
    until(lambda: list(out.glob("stages/*/checkpoints")))
    return child


def working(out: Path) -> list[int]:
    """Processes that have files of the study open, or name it in their command."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            files = [os.readlink(handle) for handle in (process / "fd").iterdir()]
            named = str(out) in (process / "cmdline").read_text()
            if alive(int(process.name)) and (named or any(str(out) in file for file in files)):
                found.append(int(process.name))
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="reads /proc")
def test_a_killed_or_stopped_study_leaves_no_process_and_goes_on(
    study_file: Path, colors: Path, tmp_path: Path
) -> None:
    loaded = load_study(study_file, ["seeds=[0]"])
    out = tmp_path / "out"
    before = set(processes())
    child = begun(study_file, out, colors)
    with pytest.raises(InputError, match=f"the study {out} is in use by process {child.pid}"):
        run_study(loaded, Place(out, colors, "cpu"))
    child.kill()
    child.wait()
    until(lambda: not working(out) and set(processes()) <= before, 30)
    child = begun(study_file, out, colors)
    child.terminate()
    said = child.communicate(timeout=120)[1]
    assert child.returncode == 143, said
    assert said.splitlines()[-1].startswith("stopped by SIGTERM")
    until(lambda: set(processes()) <= before, 30)
    place, whole = Place(out, colors, "cpu"), Place(tmp_path / "whole", colors, "cpu")
    assert run_study(loaded, place) == run_study(loaded, whole) == []
    assert scores(loaded, place) == scores(loaded, whole)


def processes() -> list[int]:
    """All processes of Python's forkserver that run."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            forked = "multiprocessing.forkserver" in (process / "cmdline").read_text()
            if forked and alive(int(process.name)):
                found.append(int(process.name))
    return found


def test_links_of_a_run_are_made_anew_and_nothing_else_is_deleted(
    study_file: Path, tmp_path: Path
) -> None:
    recipe = load_study(study_file).recipes["direct"]
    folder, _ = link_run(tmp_path, recipe, "student")
    (folder / "evaluations").mkdir()
    (folder / "evaluations" / "results.json").write_text("mine")
    (folder / "student" / "model").write_text("mine")
    assert link_run(tmp_path, recipe, "student")[0] == folder
    assert (folder / "evaluations" / "results.json").read_text() == "mine"
    assert (folder / "student" / "model").read_text() == "mine"


def test_what_fails_is_told_and_the_rest_goes_on(
    study_file: Path, colors: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_study(study_file, ["seeds=[0]"])
    real = running.run_recipe

    def diverging(recipe: Any, *given: Any, **named: Any) -> Any:
        if "proxy" in recipe.stages:
            raise InputError("the loss became nan")
        return real(recipe, *given, **named)

    monkeypatch.setattr(running, "run_recipe", diverging)
    log = Lines()
    failed = run_study(loaded, Place(tmp_path / "out", colors, "cpu"), progress=log)
    assert "the loss became nan" in failed[0]
    assert len(failed) == 5  # the proxy, two stages and two arms that need it
    assert "evaluate direct, seed 0: " in log.text


def test_missing_data_are_told_before_any_work(study_file: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["ablate", str(study_file), "--data", str(tmp_path)])
    assert isinstance(result.exception, InputError)
    assert "recipe two: data.sources.0" in str(result.exception)


def test_one_seed_is_told_before_any_work(study_file: Path, colors: Path, tmp_path: Path) -> None:
    said = run(study_file, tmp_path / "out", colors, "--no-run", "seeds=[0]").output
    assert said.startswith("seeds: with one seed the noise of training is unknown")
    assert "with one seed" not in run(study_file, tmp_path / "out", colors, "--no-run").output
