"""What the page says, of finished and of half-finished runs."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from openeupe.distillation.optimizer import OwnOptimizerConfig
from openeupe.distillation.run_folder import Run
from openeupe.errors import InputError
from openeupe.report.belonging import Belonging
from openeupe.report.compact import compact_all
from openeupe.report.deployment import deployed
from openeupe.report.gather import _curves
from openeupe.report.page import learning_rates, write_report

from ..conftest import call
from .conftest import Reported

_VOID = {"meta", "link", "img", "br", "input"}


class Reader(HTMLParser):
    """Checks that tags close in order; collects text, images, and what is loaded from outside."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.feed(page.read_text(encoding="utf-8"))
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.text += data + " "


def test_a_finished_run(reported: Reported) -> None:
    page = Reader(reported.page)
    text = " ".join(page.text.split())
    assert "Finished: all 2 stages" in text
    for word in ("test_vit", "test_convnext", "4 of 2 images", "Image understanding", "raw_pixels"):
        assert word in text
    assert "deploy/onnx onnx fp32 32x32 yes 0.999123 0.999990 0.999123" in text  # export.json
    assert "deploy/onnx onnx fp32 32x32 1 12.35" in text  # latency.json
    assert "95 % bootstrap intervals" in text
    assert "1: knn" in text  # the radar's written axes
    assert "Not shown: the teachers test_convnext, test_vit" in text
    alts = [of["alt"] for tag, of in page.tags if tag == "img"]
    assert all(alts)
    # A chart per stage, student and kind of token; domains; radar.
    assert sum(alt.startswith("Loss over steps") for alt in alts) == 4
    assert sum("score and interval" in alt for alt in alts) == 3
    assert sum(alt.startswith("Radar") for alt in alts) == 1
    # Three images through untrained, two stages and raw_pixels.
    assert sum("colours of the patches" in alt for alt in alts) == 12
    assert sum("component" in alt for alt in alts) == 3 * 3 * 4
    assert sum(tag == "canvas" for tag, _ in page.tags) == 6
    assert reported.page.stat().st_size < 2e6


def test_it_needs_nothing_else(reported: Reported) -> None:
    for _, attributes in Reader(reported.page).tags:
        for name in ("src", "href"):
            assert attributes.get(name, "#").startswith(("#", "data:"))
    text = reported.page.read_text(encoding="utf-8")
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest", text)
    assert "default-src 'none'" in text  # a browser would refuse


def test_the_same_run_gives_the_same_bytes(reported: Reported, tmp_path: Path) -> None:
    results = ["--results", reported.run.parent.parent / "pixels"]
    call(
        "report", reported.run, "--device", "cpu", "--also", "raw_pixels", *results,
        "--out", tmp_path / "again.html",
    )  # fmt: skip
    assert (tmp_path / "again.html").read_bytes() == reported.page.read_bytes()


def test_a_half_finished_run_says_so(reported: Reported, tmp_path: Path) -> None:
    run = tmp_path / "half"
    shutil.copytree(reported.run, run, ignore=shutil.ignore_patterns("evaluations", "*.json.gz"))
    (run / "second" / "finished.json").unlink()
    shutil.rmtree(run / "deploy")
    call("report", run, "--device", "cpu")
    text = " ".join(Reader(run / "report.html").text.split())
    assert "Half-finished: 1 of 2 stages have ended, second: at step 4 of 4." in text
    assert "Not evaluated yet" in text
    assert "Not exported yet" in text
    assert "Which patches are similar" in text


def test_a_student_that_diverged_is_named_and_not_looked_through(
    reported: Reported, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(reported.run, run, ignore=shutil.ignore_patterns("evaluations", "deploy"))
    about = json.loads((run / "second" / "finished.json").read_text())
    (run / "second" / "finished.json").write_text(json.dumps({**about, "dropped": {"net": 3}}))
    call("report", run, "--device", "cpu")
    page = Reader(run / "report.html")
    assert "net diverged at step 3" in page.text
    options = page.text.split("Compared with")[0].split("Encoder")[-1].split()
    assert options[:2] == ["untrained", "first"]
    assert "second" not in options[:3]


def test_a_run_that_has_just_begun_and_one_without_its_images(
    reported: Reported, tmp_path: Path
) -> None:
    for stage in ("first", "second"):
        recipe = (reported.run / "recipe.yaml").read_text()
        run = tmp_path / stage
        run.mkdir()
        if stage == "second":  # the images have gone
            shutil.copytree(reported.run / "first", run / "first")
            recipe = recipe.replace("/images", "/elsewhere")
        (run / "recipe.yaml").write_text(recipe)
        call("report", run, "--device", "cpu")
    text = Reader(tmp_path / "first" / "report.html").text
    assert "No step has been logged yet" in text
    assert "No pictures: no stage has ended yet" in text
    assert (
        "the recipe's images cannot be read here"
        in Reader(tmp_path / "second" / "report.html").text
    )


def test_exports_made_of_the_run_are_found_and_broken_files_are_passed_over(
    reported: Reported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    belonging = Belonging(Run.open(reported.run))
    for name, identity in (("mine", belonging.students["second"]), ("others", "0123")):
        folder = tmp_path / "exports" / name
        folder.mkdir(parents=True)
        about = {"source": str(reported.run), "target": name, "encoder": {"identity": identity}}
        (folder / "export.json").write_text(json.dumps(about))
    (tmp_path / "exports" / "mine" / "latency.json").write_text("[{]")
    (exports, latencies), left_out = deployed(reported.run, belonging, Path("exports"))
    assert [row[:2] for row in exports.rows] == [["deploy/onnx", "onnx"], ["exports/mine", "mine"]]
    assert latencies.header == ["folder", "label", "size", "threads", "latency_p50_ms"]
    assert len(left_out) == 1
    assert left_out[0].startswith("exports/mine/latency.json is not shown: it is damaged")
    (exports, _), _ = deployed(reported.run, belonging)  # nothing is looked for where one stands
    assert [row[0] for row in exports.rows] == ["deploy/onnx"]


def test_names_are_escaped(reported: Reported, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    recipe = (reported.run / "recipe.yaml").read_text()
    (run / "recipe.yaml").write_text(recipe.replace("/images", "/<script>alert(1)</script>"))
    assert "<script>alert" not in write_report(run).read_text()


def test_a_mistake_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"not a run folder: it has no recipe\.yaml"):
        call("report", tmp_path)


def test_shortened_tokens_keep_the_cosines() -> None:
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(200, 12, generator=generator)
    images = [
        torch.einsum("dk,khw->dhw", mixing, torch.randn(12, 9, 7, generator=generator))
        for _ in range(2)
    ]
    small = compact_all({"a": images})["a"]
    assert small.grids == [(9, 7), (9, 7)]
    rank = len(small.scales)
    assert rank == 16
    values = [
        torch.frombuffer(bytearray(part), dtype=torch.int8).view(63, rank).float()
        * torch.tensor(small.scales)
        for part in small.data
    ]
    first, second = (torch.nn.functional.normalize(t.flatten(1), dim=0) for t in images)
    torch.testing.assert_close(values[0] @ values[1].T, first.T @ second, rtol=0, atol=0.05)
    assert small.error < 0.02


def test_learning_rates_are_those_that_were_used(reported: Reported) -> None:
    """After scaling by the batch, and each student's own."""
    stage = Run.open(reported.run).recipe.stages["first"]
    net = stage.students["net"]
    shared = stage.optimizer.model_copy(update={"lr_scaling": "linear_wrt_256"})
    own = OwnOptimizerConfig.model_validate({"lr": 0.256, "warmup_steps": 7, "backbone_lr": 0.1})
    students = {"net": net, "twin": net, "other": net.model_copy(update={"optimizer": own})}
    one = stage.model_copy(update={"optimizer": shared, "batch_size": 512, "students": students})
    assert learning_rates(one) == [
        ("learning rate of net, twin", "0.002 (0.001 scaled by linear_wrt_256), 0 warm-up"),
        (
            "learning rate of other",
            "0.512 (0.256 scaled by linear_wrt_256), times 0.1 for the backbone, 7 warm-up",
        ),
    ]
    assert learning_rates(stage) == [("learning rate", "0.001, 0 warm-up")]


def test_damaged_names_of_losses_are_one_line() -> None:
    config: Any = SimpleNamespace(students={"student": None})
    with pytest.raises(InputError, match=r"metrics\.jsonl is damaged \('loss/x'\)"):
        _curves(config, [{"step": 1, "loss/x": 0.5}])
