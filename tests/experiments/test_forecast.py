"""What two measurements predict about teachers, and how well: cases whose answers are known."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from experiments import forecast
from experiments.forecast import explained
from experiments.forecast_agreement import agreement, spearman
from openeupe.ablation.study import load_study
from openeupe.errors import InputError

SETTINGS = {"recipe": "direct", "student": "all", "images": 12, "batches": 2}
DOCS = Path(__file__).parents[2] / "docs"


def test_what_is_shared_is_explained_and_what_is_not_is_not() -> None:
    torch.manual_seed(0)
    known = torch.randn(600, 20)
    assert explained(known, known @ torch.randn(20, 8)) > 0.95
    assert explained(known, torch.randn(600, 8)) < 0.05


def test_rank_correlation_is_that_of_the_textbook() -> None:
    rho, p = spearman([1, 2, 3, 4, 5], [5, 6, 7, 8, 7])
    assert rho == pytest.approx(0.8208, abs=1e-4)
    rho, p = spearman([1, 2, 3, 4], [10, 20, 30, 40])
    assert rho == pytest.approx(1)
    assert p == pytest.approx(2 / 24)


def test_a_forecast_that_is_right_agrees() -> None:
    measured = {
        t: {"shared_cls": 0.1 * i, "shared_patches": 0.1 * i, "agreement": -0.1 * i}
        for i, t in enumerate("abcd")
    }
    worth = {t: {"knn": 4.0 - i, "depth": 0.4 - 0.1 * i} for i, t in enumerate("abcd")}
    found = agreement(measured, worth, worth)
    assert list(found["mean_worth"]) == list("abcd")
    for name in (
        "what the others do not know",
        "gradient agreement",
        "frozen tokens on the benchmark",
    ):
        assert found[name]["spearman"] == pytest.approx(1)
    assert found["frozen tokens on the benchmark"]["pairs"] == 8


def test_a_forecast_from_files_to_tables(
    raw_study: dict[str, Any],
    study_file: Path,
    colors: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stage = raw_study["recipes"]["direct"]["stages"]["student"]
    stage["optimizer"] = {"lr": 1e-3, "freeze_backbone_steps": 1}  # gradients are measured after it
    study_file.write_text(yaml.safe_dump(raw_study, sort_keys=False))
    settings, out = tmp_path / "forecast.yaml", tmp_path / "out"
    settings.write_text(yaml.safe_dump(SETTINGS))
    line = ["forecast", study_file, settings, out, "--data", colors]
    monkeypatch.setattr(sys, "argv", list(map(str, line)))
    forecast.main()
    assert "| vit | " in capsys.readouterr().out
    content = json.loads((out / "forecast-tiny.json").read_text())
    assert content["images"] == 12
    assert set(content["teachers"]) == {"vit", "net"}
    assert content["gradient_cosines"]["vit"]["vit"] == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"recipe": "two"}, "proxy is an earlier stage's student, and a forecast trains nothing"),
        ({"full": "none"}, "arms: there is no 'none': use one of direct"),
        ({"without": {"none": "no_vit"}}, "teachers: there is no 'none': use one of vit, net"),
    ],
)
def test_settings_that_do_not_fit_the_study_are_refused(
    change: dict[str, Any],
    message: str,
    study_file: Path,
    tmp_path: Path,
) -> None:
    file = tmp_path / "forecast.yaml"
    settings = {"recipe": "two"} if "recipe" in change else {**SETTINGS, **change}
    file.write_text(yaml.safe_dump(settings))
    with pytest.raises(InputError, match=message):
        forecast.load_config(file, load_study(study_file))


def test_the_settings_of_the_documents_fit_their_study() -> None:
    file = Path(forecast.__file__).with_name("claim_forecast.yaml")
    forecast.load_config(file, load_study(DOCS / "studies" / "claim_teachers.yaml"))
