"""Commands in this process, and one small quickstart on real experts for all who look at a run."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from openeupe.cli import app

from . import groups

# What makes a quickstart a matter of seconds. Its figures mean nothing then; its path is the same.
SIDES = {"proxy": "64", "student": "64", "finetuned": "[64, 96]"}
QUICK = [
    *(
        f"stages.{stage}.{setting}"
        for stage, side in SIDES.items()
        for setting in (
            "steps=2",
            "batch_size=4",
            "statistics.iterations=1",
            "optimizer.warmup_steps=0",
            f"students.{'proxy' if stage == 'proxy' else 'student'}.resolution={side}",
        )
    ),
    *(f"stages.proxy.teachers.{t}.resolution=64" for t in ("semantic", "boundaries", "text")),
    *(f"stages.{s}.teachers.proxy.resolution={SIDES[s]}" for s in ("student", "finetuned")),
]


# The suite with few crops, in place of the packaged one.
QUICK_SUITE = {
    "base": "quickstart",
    "benchmarks": {"fidelity": {"train_crops": 26, "test_crops": 7}},
}


def pytest_configure() -> None:
    """Take Ctrl-C again where a shell started the tests in the background, with it ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Deal out tests by the groups of `tests/groups.py`, in several processes."""
    return groups.scheduler(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The groups that take longest come first."""
    items.sort(key=lambda item: groups.place_of(item.nodeid))


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Networks as small as the tests' only lose by a second thread, and much on a busy machine."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def plain_child_signals() -> Iterator[None]:
    """Data loaders with workers leave a handler for ended children, which then runs, long after,
    at the end of any process that a test starts; one such run ended in a crash.
    """
    yield
    if hasattr(signal, "SIGCHLD"):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def call(*arguments: object) -> str:
    """What a command prints, which must succeed; a mistake is the `InputError` it is."""
    result = CliRunner().invoke(app, [str(a) for a in arguments], terminal_width=200)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


@dataclass
class Quickstart:
    """A finished run: its folder, and what was printed."""

    folder: Path
    output: str


@pytest.fixture(scope="session")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Quickstart:
    """The quickstart on the registry's photos with a few steps, few views and small images."""
    folder = tmp_path_factory.mktemp("quickstart") / "runs" / "quickstart"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("openeupe.api.quickstart._SUITE", QUICK_SUITE)
        patch.setattr("openeupe.report.seen._LARGEST_RESOLUTION", 128)
        return Quickstart(folder, call("quickstart", "--run", folder, "--device", "cpu", *QUICK))
