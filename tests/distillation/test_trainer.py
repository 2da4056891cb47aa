from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from openeupe.distillation.metrics import Meter, MetricsLog, read_metrics
from openeupe.distillation.placement import place
from openeupe.distillation.recipe import Recipe
from openeupe.distillation.run import run_recipe
from openeupe.distillation.stage import Stage
from openeupe.distillation.track import TensorBoard
from openeupe.distillation.trainer import Trainer
from openeupe.distributed import Processes
from openeupe.encoders import create
from openeupe.errors import InputError
from openeupe.progress import SILENT
from speed.stages import HostReads

from .conftest import cut_off


def trainer(raw: dict[str, Any], folder: Path) -> Trainer:
    raw["stages"] = {"proxy": raw["stages"]["proxy"]}
    recipe = Recipe.model_validate(raw)
    config = recipe.stages["proxy"]
    stage = Stage(
        "proxy",
        config,
        {k: create(t.encoder) for k, t in config.teachers.items()},
        {k: create(s.encoder) for k, s in config.students.items()},
        seed=0,
    )
    return Trainer(stage, recipe.data, folder, Processes(torch.device("cpu")), SILENT)


def test_a_step_reads_nothing_to_the_host(raw_recipe: dict[str, Any], tmp_path: Path) -> None:
    one = trainer(raw_recipe, tmp_path)
    one.stage.train()
    images = torch.randint(0, 256, (4, 3, 64, 64)).byte()
    one.meter.add(one.step(images, 0))  # AdamW makes its state in the first step
    reads = HostReads()
    with reads:
        for step in range(1, 4):
            one.meter.add(one.step(images, step))
    assert reads.count == 0
    with reads:
        means = one.meter.flush()
    assert reads.count == 1  # one stacked tensor
    with reads:
        assert one.config.steps > float(torch.ones(1)) > 0
    assert reads.count == 2  # the counter would see a loss that is read
    assert len(means) == 2 + 2 * 2  # total, gradient norm, two teachers x two token kinds


def test_a_step_moves_every_part_that_should_move(
    raw_recipe: dict[str, Any], tmp_path: Path
) -> None:
    one = trainer(raw_recipe, tmp_path)
    one.stage.train()
    before = {k: v.clone() for k, v in one.stage.named_parameters()}
    one.step(torch.randint(0, 256, (4, 3, 64, 64)).byte(), 0)
    moved = {k for k, v in one.stage.named_parameters() if not torch.equal(v, before[k])}
    assert not any(k.startswith("teachers.") for k in moved)
    heads = {k for k in before if k.startswith("heads.")}
    assert heads <= moved
    assert any(k.startswith("students.proxy.") for k in moved)


def test_gradients_are_clipped(raw_recipe: dict[str, Any], tmp_path: Path) -> None:
    raw_recipe["stages"]["proxy"]["optimizer"] = {"lr": 1e-3, "clip_norm": 1e-4}
    one = trainer(raw_recipe, tmp_path)
    norms = []
    optimizer = one.students.learners["proxy"].optimizers[0]
    step = optimizer.step

    def spy() -> None:
        grads = [
            p.grad.norm() for p in one.students.learners["proxy"].parameters if p.grad is not None
        ]
        norms.append(float(torch.stack(grads).norm()))
        step()

    optimizer.step = spy  # type: ignore[method-assign]
    values = one.step(torch.randint(0, 256, (4, 3, 64, 64)).byte(), 0)
    assert float(values["grad_norm/proxy"]) > 1e-3  # before clipping
    assert norms[0] == pytest.approx(1e-4, rel=1e-2)


def test_the_meter_gives_means_and_starts_anew() -> None:
    meter = Meter()
    for value in (1.0, 3.0):
        meter.add({"a": torch.tensor(value), "b": torch.tensor(-value)})
    assert meter.flush() == {"a": 2.0, "b": -2.0}
    assert meter.flush() == {}


def test_a_log_line_cut_off_by_a_kill_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"ste')
    told: list[str] = []
    assert [r["step"] for r in read_metrics(path, told.append)] == [1, 2]
    assert not told


def test_a_damaged_line_costs_no_other_one(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"st\n[]\n{"step": 4}\n{"step": 5}\n')
    told: list[str] = []
    assert [r["step"] for r in read_metrics(path, told.append)] == [1, 4, 5]
    assert "damaged in line 2, 3" in told[0]
    log = MetricsLog(tmp_path, 4, TensorBoard(tmp_path, 4), told.append)
    log.close()
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 4]
    assert len(told) == 2


def test_broken_images_are_counted_and_too_many_stop_the_run(
    raw_recipe: dict[str, Any], images: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for path in images.iterdir():
        Image.open(path).save(folder / path.name)
    (folder / "zero.png").write_bytes(b"")
    raw_recipe["stages"] = {"proxy": raw_recipe["stages"]["proxy"]}
    raw_recipe["stages"]["proxy"]["steps"] = 8  # 32 draws, more than one epoch
    raw_recipe["data"]["sources"] = [{"path": str(folder)}]
    recipe = Recipe.model_validate(raw_recipe)
    run_recipe(recipe, tmp_path / "run")
    last = read_metrics(tmp_path / "run" / "proxy" / "metrics.jsonl")[-1]
    assert last["broken_images"] == 1
    for i in range(12):
        (folder / f"bad{i}.png").write_bytes(b"\x89PNG nothing")
    with pytest.raises(InputError, match=r"cannot be read.*bad\d+\.png"):
        run_recipe(recipe, tmp_path / "again")


def test_checkpointed_activations_update_running_statistics_once_a_step(
    raw_recipe: dict[str, Any], tmp_path: Path
) -> None:
    stage = raw_recipe["stages"]["proxy"]
    stage["student_precision"] = "fp32"
    buffers = []
    for again in (False, True):
        stage["students"] = {
            "net": {
                "encoder": "resnet10t",
                "resolution": 64,
                "checkpoint_activations": again,
            }
        }
        torch.manual_seed(0)
        one = trainer(raw_recipe, tmp_path)
        place(one.stage, one.processes)
        one.stage.train()
        torch.manual_seed(1)
        one.step(torch.randint(0, 256, (4, 3, 64, 64)).byte(), 0)
        buffers.append(dict(one.stage.students["net"].named_buffers()))
    for name, plain in buffers[0].items():
        torch.testing.assert_close(buffers[1][name], plain, msg=name)


@pytest.mark.parametrize("muon", [None, {"lr": 0.01}])
def test_a_student_with_parameters_that_get_no_gradient_resumes_to_the_same_bits(
    raw_recipe: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    muon: dict[str, float] | None,
) -> None:
    stage = raw_recipe["stages"]["proxy"]
    stage["optimizer"]["muon"] = muon
    stage["students"] = {
        "s": {  # the mean patch token leaves what its classifier would use without a gradient
            "encoder": "mobilenetv3_small_050",
            "args": {"class_token": "mean"},
            "resolution": 64,
        }
    }
    raw_recipe["stages"] = {"proxy": stage}
    recipe = Recipe.model_validate(raw_recipe)
    whole = run_recipe(recipe, tmp_path / "whole").student("proxy")
    with cut_off(monkeypatch):
        run_recipe(recipe, tmp_path / "cut")
    resumed = run_recipe(recipe, tmp_path / "cut").student("proxy")
    one, other = (s.encoder.state_dict() | s.heads["vit"].state_dict() for s in (whole, resumed))
    assert all(torch.equal(value, other[name]) for name, value in one.items())
