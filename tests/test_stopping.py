"""SIGTERM and SIGINT: a checkpoint at the next step, a line how to go on, codes 143 and 130."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from openeupe.distillation.recipe import load_recipe
from openeupe.distillation.run import run_recipe
from openeupe.stopping import Stopped, stop_requested

from .data.test_workers import alive
from .distillation.conftest import images, raw_recipe  # noqa: F401  (fixtures)

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")


def start(*words: object, **named: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "openeupe", *map(str, words)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **named,
    )  # fmt: skip


def until(condition: Any, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_signal_is_noted_while_work_is_saved_and_ends_it_afterwards() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stop_requested() as stop:
        assert stop.signum is None
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)  # a second one changes nothing
        assert stop.signum == signal.SIGTERM
        with pytest.raises(Stopped):
            os.kill(os.getpid(), signal.SIGINT)  # but an impatient Ctrl-C does
        stop.signum = None
    assert signal.getsignal(signal.SIGTERM) == before
    with pytest.raises(Stopped) as raised, stop_requested():
        os.kill(os.getpid(), signal.SIGINT)
    assert raised.value.signum == signal.SIGINT


@pytest.fixture
def recipe(raw_recipe: dict[str, Any], tmp_path: Path) -> Path:  # noqa: F811
    stage = raw_recipe["stages"]["proxy"] | {"steps": 60, "checkpoint_every": 1000, "log_every": 1}
    raw_recipe["stages"] = {"proxy": stage}
    raw_recipe["data"]["workers"] = 1
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(raw_recipe))
    return path


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_run_saves_says_how_to_go_on_and_ends_bit_identical(
    recipe: Path, tmp_path: Path, signum: int, code: int
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    child = start("distill", recipe, "--run", cut, start_new_session=True)
    metrics = cut / "proxy" / "metrics.jsonl"
    until(lambda: metrics.is_file() and len(metrics.read_text().splitlines()) > 2)
    os.killpg(child.pid, signum)  # as a terminal or a batch system does: to every process of it
    _, said = child.communicate(timeout=120)
    assert child.returncode == code, said
    name = signal.Signals(signum).name
    assert f"stopped by {name} at proxy, step" in said
    assert "run the same command again" in said
    assert said.count("\n") == 1
    saved = sorted((cut / "proxy" / "checkpoints").iterdir())[-1].name
    assert 0 < int(saved.removeprefix("step-")) < 60
    for run in (cut, whole):
        run_recipe(load_recipe(recipe), run)
    one, two = (run / "proxy" / "proxy" / "model.safetensors" for run in (whole, cut))
    assert one.read_bytes() == two.read_bytes()
    assert not [p for p in cut.rglob(".*") if p.name != ".lock"]


def test_a_second_process_on_a_run_ends_at_once_and_loses_nothing(
    recipe: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    first = start("distill", recipe, "--run", run)
    metrics = run / "proxy" / "metrics.jsonl"
    until(lambda: metrics.is_file() and metrics.read_text())
    first.send_signal(signal.SIGSTOP)  # else it could end before the second one begins
    second = start("distill", recipe, "--run", run)
    said = second.communicate(timeout=120)[1]
    assert second.returncode == 2, said
    assert f"is in use by process {first.pid} on " in said
    assert said.count("\n") == 1
    first.send_signal(signal.SIGCONT)
    assert "Done" in first.communicate(timeout=300)[0]
    assert len(metrics.read_text().splitlines()) == 60


def test_a_command_that_saves_nothing_ends_with_143_and_a_line(tmp_path: Path) -> None:
    wait = (
        "import openeupe.distillation.recipe as r, time\n"
        "r.load_recipe = lambda *_, **__: time.sleep(60)"
    )
    program = f"{wait}\nprint('up', flush=True); from openeupe.cli import main; main()"
    child = subprocess.Popen([sys.executable, "-c", program, "plan", "direct"],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip
    assert child.stdout is not None
    child.stdout.readline()
    time.sleep(2)
    child.terminate()
    said = child.communicate(timeout=60)[1]
    assert child.returncode == 143, said
    assert said.startswith("stopped by SIGTERM")


def test_a_stop_that_a_library_hides_is_no_bug() -> None:
    """As a module in C whose import is interrupted: it raises an ImportError of its own."""
    program = """
import os, signal, sys, time
from openeupe import cli

def hiding(words):
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    except BaseException:
        raise ImportError("initialization failed")

cli.app = hiding
cli.main()
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                           timeout=60, check=False)  # fmt: skip
    assert ended.returncode == 143, ended.stderr
    assert ended.stderr.startswith("stopped by SIGTERM")
    assert "Traceback" not in ended.stderr


CHILD = """
import sys, time, multiprocessing
from openeupe.stopping import end_with_parent

def work(pipe):
    import os
    end_with_parent()
    pipe.send(os.getpid())
    time.sleep(60)

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    ours, theirs = context.Pipe()
    child = context.Process(target=work, args=(theirs,))
    child.start()
    print(ours.recv(), flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_children_end_with_a_killed_parent(tmp_path: Path, method: str) -> None:
    program = tmp_path / "program.py"
    program.write_text(CHILD)
    parent = subprocess.Popen([sys.executable, str(program), method],
                              stdout=subprocess.PIPE, text=True)  # fmt: skip
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert alive(pid)
    parent.kill()
    parent.wait()
    until(lambda: not alive(pid), 20)
