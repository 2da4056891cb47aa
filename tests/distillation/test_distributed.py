"""The same recipe in several processes: the same losses, the same students, resumed by any number.

Jobs are real ones, started by torchrun, with gloo on the CPU.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from openeupe.distillation.metrics import read_metrics
from openeupe.distillation.placement import choose_sharded
from openeupe.distillation.recipe import load_recipe
from openeupe.distillation.run import run_recipe
from openeupe.distillation.standardize import Moments
from openeupe.distributed import Processes, average_batch_norm, check_share
from openeupe.errors import InputError

from ..data.test_workers import alive
from ..test_stopping import until
from ..tiny_recipe import network

TORN = Path(__file__).with_name("torn.py")


def torchrun(
    count: int, *command: object, timeout_s: float = 300
) -> subprocess.CompletedProcess[str]:
    start = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(count)]
    own_port = ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    return subprocess.run(
        [*start, *own_port, *map(str, command)],
        capture_output=True, text=True, timeout=timeout_s, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def recipe(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two students of several resolutions, then one whose every part is shared out and computed
    in parts, heads first. No batch norm, whose statistics are each process's own on a CPU. All are
    shallow: FSDP2 and the optimizers of sharded weights take most of the time, for each tensor.
    """

    schedule = {
        "steps": 6, "batch_size": 8, "head_hidden": 16, "statistics": {"iterations": 2},
        "optimizer": {"lr": 1e-3}, "log_every": 1, "checkpoint_every": 2,
        "teacher_precision": "fp32", "student_precision": "fp32",
    }  # fmt: skip
    proxy = {
        "teachers": {"vit": network("test_vit"), "net": network("test_resnet", 64)},
        "students": {
            "proxy": network("test_vit2", [32, 64]),
            "second": network("test_convnext", [32, 64]) | {"optimizer": {"lr": 2e-3}},
        },
        **schedule, "shard": "never",
    }  # fmt: skip
    student = {
        "teachers": {"proxy": {"encoder": "stage:proxy/proxy", "resolution": 32}},
        "students": {"student": network("test_vit") | {"checkpoint_activations": True}},
        **schedule, "shard": "always", "accumulate": 2,
        "optimizer": {"lr": 1e-3, "freeze_backbone_steps": 2, "backbone_lr": 0.2, "muon": {}},
        "head_init": "ridge",
    }  # fmt: skip
    path = tmp_path_factory.mktemp("recipe") / "shared.yaml"
    data = {"sources": [{"path": str(images)}]}
    stages = {"proxy": proxy, "student": student}
    path.write_text(yaml.safe_dump({"name": "shared", "data": data, "stages": stages}))
    return path


@pytest.fixture(scope="module")
def alone(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a single process."""
    folder = tmp_path_factory.mktemp("alone")
    run_recipe(load_recipe(recipe), folder)
    return folder


def assert_same(folder: Path, alone: Path) -> None:
    """Losses of every step, statistics and weights, within rounding."""
    for stage in ("proxy", "student"):
        here = read_metrics(folder / stage / "metrics.jsonl")
        there = read_metrics(alone / stage / "metrics.jsonl")
        assert [r["step"] for r in here] == [1, 2, 3, 4, 5, 6]
        for one, other in zip(here, there, strict=True):
            for name, value in other.items():
                if name not in ("images_per_s", "waiting"):
                    assert one[name] == pytest.approx(value, rel=2e-4), (stage, name)
    files = sorted(p.relative_to(alone) for p in alone.rglob("*.safetensors"))
    assert files == sorted(p.relative_to(folder) for p in folder.rglob("*.safetensors"))
    for file in files:
        one, other = load_file(folder / file), load_file(alone / file)
        for name, value in other.items():
            # Adam divides by the gradient's own size: where that is rounding, so is the step.
            torch.testing.assert_close(one[name], value, rtol=0, atol=4e-3)


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_several_processes_train_as_one(
    count: int, recipe: Path, alone: Path, tmp_path: Path
) -> None:
    ran = torchrun(
        count, "-m", "--", "openeupe", "distill", recipe,
        "--run", tmp_path / "run", "--device", "cpu",
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert_same(tmp_path / "run", alone)
    assert ran.stdout.count("Done:") == 1  # one process speaks
    assert f"{count} x cpu" in ran.stdout
    assert f"sharded over {count}: teachers.proxy, students.student" in ran.stdout


@pytest.mark.slow
def test_compiled_processes_train_as_one_that_is_not(
    recipe: Path, alone: Path, tmp_path: Path
) -> None:
    """Two students, then one that is sharded, checkpointed and computed in parts."""
    compiled = [f"stages.{stage}.compile=all" for stage in ("proxy", "student")]
    ran = torchrun(
        2, "-m", "--", "openeupe", "distill", recipe, *compiled,
        "--run", tmp_path / "run", "--device", "cpu", timeout_s=1800,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert_same(tmp_path / "run", alone)


def test_a_killed_process_ends_the_job_and_another_number_carries_it_on(
    recipe: Path, alone: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    ran = torchrun(2, "--", TORN, 1, 3, "distill", recipe, "--run", folder, "--device", "cpu")
    assert ran.returncode != 0
    assert not (folder / "proxy" / "finished.json").exists()
    assert (folder / "proxy" / "checkpoints" / "step-000000002").is_dir()
    run_recipe(load_recipe(recipe), folder)
    assert_same(folder, alone)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="needs POSIX")
def test_processes_end_with_a_killed_torchrun_and_stop_together_when_asked(
    recipe: Path, alone: Path, tmp_path: Path
) -> None:
    """They would train on otherwise, and the same command again would find the run in use."""
    run = tmp_path / "run"
    slow = "import time; from openeupe.distillation.trainer import Trainer\n" \
           "whole = Trainer.step\n" \
           "Trainer.step = lambda *given: (time.sleep(1), whole(*given))[1]\n" \
           "from openeupe.cli import main; main()"  # fmt: skip
    program = tmp_path / "slow.py"
    program.write_text(slow)
    words = [program, "distill", recipe, "--run", run, "--device", "cpu"]

    def started() -> tuple[subprocess.Popen[str], list[int]]:
        begun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2",
                 "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]  # fmt: skip
        job = subprocess.Popen([*begun, "--", *map(str, words)], text=True,
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)  # fmt: skip
        records = len(metrics(run))
        until(lambda: len(metrics(run)) > records)
        return job, children(job.pid)

    job, ranks = started()
    assert len(ranks) == 2
    job.kill()
    job.wait()
    until(lambda: not any(alive(pid) for pid in ranks), 30)
    job, ranks = started()
    job.terminate()
    said = job.communicate(timeout=120)[1]
    assert said.count("stopped by SIGTERM at ") == 1
    assert not any(alive(pid) for pid in ranks)
    done = torchrun(2, "-m", "--", "openeupe", *words[1:])
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(metrics(run)) == len(metrics(alone))


def metrics(run: Path) -> list[str]:
    return [line for file in sorted(run.glob("*/metrics.jsonl"))
            for line in file.read_text().splitlines()]  # fmt: skip


def children(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(stat.read_text().rsplit(")", 1)[1].split()[1]) == pid:
                found.append(int(stat.parent.name))
    return found


@pytest.mark.slow
def test_one_process_is_carried_on_by_two(recipe: Path, alone: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    ran = torchrun(1, "--", TORN, 0, 5, "distill", recipe, "--run", folder, "--device", "cpu")
    assert ran.returncode != 0
    ran = torchrun(2, "-m", "--", "openeupe", "distill", recipe, "--run", folder, "--device", "cpu")
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert_same(folder, alone)


def test_a_batch_that_cannot_be_dealt_out_is_refused() -> None:
    check_share(8, 2, 4, "stages.proxy")
    with pytest.raises(InputError, match=r"stages\.proxy: a batch of 12 .* multiple of 8"):
        check_share(12, 2, 4, "stages.proxy")


def test_the_largest_networks_are_sharded_until_the_rest_fits() -> None:
    needs = {"small": 10, "proxy": 400, "expert": 200}
    assert choose_sharded(needs, memory=2000, shards=4, mode="auto") == []
    assert choose_sharded(needs, memory=700, shards=4, mode="auto") == ["proxy"]
    assert choose_sharded(needs, memory=400, shards=4, mode="auto") == ["proxy", "expert"]
    assert choose_sharded(needs, memory=400, shards=4, mode="never") == []
    assert choose_sharded(needs, memory=400, shards=1, mode="auto") == []
    assert choose_sharded(needs, memory=10**9, shards=4, mode="always") == list(needs)


def test_moments_of_shares_are_those_of_the_whole() -> None:
    rows = torch.randn(60, 3) * 5 + 2
    whole, shares = Moments(3, rows.device), [Moments(3, rows.device) for _ in range(3)]
    whole.add(rows)
    for share, some in zip(shares, rows.split([10, 20, 30]), strict=True):
        share.add(some)
    packed: list[torch.Tensor] = []
    for share in shares:
        share.gathered(lambda t: packed.append(t) or [t])  # type: ignore[func-returns-value]
    merged = shares[0].gathered(lambda _: packed)
    assert merged.count == 60
    torch.testing.assert_close(merged.mean, whole.mean)
    torch.testing.assert_close(merged.std(), whole.std())


def test_running_statistics_of_processes_are_averaged(monkeypatch: pytest.MonkeyPatch) -> None:
    one = torch.nn.BatchNorm2d(2)
    one.running_mean = torch.tensor([1.0, 3.0])
    two = Processes(torch.device("cpu"), rank=0, count=2)
    other = torch.tensor([3.0, 5.0])
    monkeypatch.setattr(Processes, "mean", lambda self, t: (t + other) / 2)
    average_batch_norm([one, torch.nn.Linear(1, 1)], two)
    assert one.running_mean.tolist() == [2.0, 4.0]
