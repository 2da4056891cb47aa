"""The file that Python runs, in a real browser."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmarks import browser

NEEDED = ("chromium", "chromedriver", "npm")


@pytest.mark.slow
@pytest.mark.skipif(
    not all(map(shutil.which, NEEDED)), reason=f"needs {', '.join(NEEDED)}, and the npm registry"
)
@pytest.mark.parametrize("name", ["onnx-fp32", "onnx-int8"])
def test_a_browser_gets_the_tokens_that_python_gets(exported: dict[str, Path], name: str) -> None:
    parity, times = browser.in_browser(exported[name], rounds=2)
    assert parity.passed
    assert len(times) == 2 * parity.photos - 1
    assert min(times) > 0
