"""The file that Python runs, in a real browser."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from openeupe.encoders import Encoder
from openeupe.encoders.engines import Precision
from speed import browser

from .exporting import export

NEEDED = ("chromium", "chromedriver", "npm")


@pytest.mark.slow
@pytest.mark.skipif(
    not all(map(shutil.which, NEEDED)), reason=f"needs {', '.join(NEEDED)}, and the npm registry"
)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_browser_gets_the_tokens_that_python_gets(
    vit: Encoder, tmp_path: Path, precision: Precision
) -> None:
    folder = tmp_path / "onnx"
    export(vit, folder, target="onnx", precision=precision, resolution=[(64, 96)])
    parity, times = browser.in_browser(folder, rounds=2)
    assert parity.passed
    assert len(times) == 2 * parity.images - 1
    assert min(times) > 0
