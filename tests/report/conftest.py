"""A run of two tiny stages with two teachers, evaluated on one benchmark, and its page."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from openeupe.data.registry_images import registry_images
from openeupe.encoders import load
from openeupe.identity import encoder_identity, settings_identity

from ..conftest import call
from ..tiny_recipe import network

SUITE = """
name: small
benchmarks:
  knn: &knn
    kind: knn
    protocol: knn/test-v1
    domain: image
    short: 32
    crop: 32
    k: [3]
    data: {layout: scenes, count: 12}
  other: {<<: *knn, domain: dense, k: [1]}
  third: {<<: *knn, domain: text, k: [2]}
"""


@dataclass(frozen=True)
class Reported:
    """run: the folder. page: its report's file."""

    run: Path
    page: Path


@pytest.fixture(scope="session")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Reported:
    folder = tmp_path_factory.mktemp("report")
    images = folder / "images"
    images.mkdir()
    for name, size in (("astronaut", (96, 96)), ("coffee", (120, 80)), ("chelsea", (90, 64))):
        Image.open(registry_images() / f"{name}.png").resize(size).save(images / f"{name}.png")

    def stage(teachers: list[str], student: str) -> dict[str, Any]:
        return {
            "teachers": {
                t.replace(":", "_"): {"encoder": t, "resolution": 32}
                if t.startswith("stage:")
                else network(t)
                for t in teachers
            },
            "students": {"net": {"encoder": student, "resolution": 32}},
            "steps": 4,
            "log_every": 1,
            "batch_size": 2,
            "head_hidden": 8,
            "statistics": {"iterations": 1},
            "optimizer": {"lr": 0.001},
        }

    recipe = {
        "name": "small",
        "data": {"sources": [{"path": str(images)}]},
        "stages": {
            "first": stage(["test_vit", "test_convnext"], "test_resnet"),
            "second": stage(["stage:first"], "stage:first"),
        },
    }
    (folder / "small.yaml").write_text(yaml.safe_dump(recipe))
    (folder / "suite.yaml").write_text(SUITE)
    run = folder / "runs" / "small"
    call("distill", folder / "small.yaml", "--run", run, "--device", "cpu")
    for encoder, out in ((run, []), ("raw_pixels", ["--out", folder / "pixels"])):
        call("evaluate", encoder, "--suite", folder / "suite.yaml", "--device", "cpu", *out)
    export = run / "deploy" / "onnx"
    export.mkdir(parents=True)
    agreement = {"mean": 0.99999, "worst": 0.999123}
    parity = {"size": "32x32", "passed": True, "cls": agreement, "patches": agreement}
    about = {
        "encoder": {"identity": encoder_identity(load(run))},
        "target": "onnx",
        "precision": "fp32",
        "outputs": {"cls": "long"},
        "parity": [parity],
    }
    (export / "export.json").write_text(json.dumps(about))
    rows = [{"label": "onnx fp32", "size": [32, 32], "threads": 1, "latency_p50_ms": 12.3456}]
    latency = {"machine": {"cores": 2}, "export": settings_identity(about), "rows": rows}
    (export / "latency.json").write_text(json.dumps(latency))
    output = call(
        "report", run, "--device", "cpu", "--also", "raw_pixels", "--results", folder / "pixels"
    )
    assert f"wrote {run / 'report.html'}" in output
    return Reported(run, run / "report.html")
