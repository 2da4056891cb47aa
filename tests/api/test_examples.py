"""The examples in the docstrings of the public functions work."""

from __future__ import annotations

import doctest
import inspect
from importlib import import_module
from pathlib import Path

import pytest

import openeupe

from ..deployment.test_latency import FakeProcess
from ..tiny_recipe import write_recipe

API = Path(openeupe.__file__).parent / "api"
SUITE = (
    "{name: small, benchmarks: {knn: {kind: knn, protocol: knn/test-v1, domain: image, short: 32, "
    "crop: 32, k: [3], data: {layout: scenes, count: 12}}}}"
)
STUDY = (
    "{name: pixels, suite: suite.yaml, seeds: [0], arms: {a: {encoder: raw_pixels}, "
    "b: {encoder: 'untrained:test_resnet'}}, tables: {t: {rows: [a, b], reference: b}}}"
)
SLOW = {"api.quickstart"}  # tests/test_quickstart.py calls it
MODULES = sorted({"table", *(f"api.{file.stem}" for file in API.glob("[a-z]*.py"))} - SLOW)


@pytest.mark.parametrize("module", MODULES)
def test_examples(module: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openeupe.deployment.latency.Process", FakeProcess)
    (here / "suite.yaml").write_text(SUITE)
    (here / "study.yaml").write_text(STUDY)
    if module == "api.report":
        openeupe.distill(write_recipe(here, 2), run="runs/mine")
    found = doctest.testmod(import_module(f"openeupe.{module}"))
    assert found.attempted
    assert not found.failed


def test_every_public_function_has_an_example() -> None:
    functions = [getattr(openeupe, name) for name in openeupe.__all__]
    without = [
        one.__name__
        for one in functions
        if inspect.isfunction(one)
        and one.__module__.startswith("openeupe.api")
        and ">>> " not in (one.__doc__ or "")
    ]
    assert without == []
