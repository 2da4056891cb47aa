"""Upper limits of settings files: sizes, depths, counts and numbers."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from openeupe.config import read_settings
from openeupe.distillation.recipe import load_recipe
from openeupe.errors import InputError


def _bomb(levels: int = 9) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (_bomb(), "values"),
        ("a: &a [*a]", "itself"),
        ("a: " + "[" * 3000, "deep"),
        ("a: " + "[" * 90 + "]" * 90, "deep"),
        ("x" * 2_000_000, "bytes"),
        ("seed: !!int x", "not valid YAML"),
        ("seed: !!float x", "not valid YAML"),
        ("seed: !!bool x", "not valid YAML"),
        ("seed: !!timestamp x", "not valid YAML"),
        ("seed: 2026-13-45", "not valid YAML"),
        ("seed: " + "9" * 5000, "not valid YAML"),
        ('base: direct\n"a\\nb\\nc": 1', "unknown key"),
    ],
)
def test_odd_yaml_is_refused_at_once_in_one_short_line(
    text: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    started = time.process_time()  # of the processor: the machine may be busy
    with pytest.raises(InputError, match=message) as found:
        load_recipe(path)
    assert time.process_time() - started < 10
    assert "\n" not in str(found.value)
    assert len(str(found.value)) < 1000


def test_odd_yaml_in_an_override_is_refused() -> None:
    for value in ("!!int x", "2026-13-45", "9" * 5000, "[" * 3000):
        with pytest.raises(InputError, match="override"):
            read_settings("recipe", "direct", [f"seed={value}"])
    with pytest.raises(InputError, match="deep"):
        read_settings("recipe", "direct", [".".join("a" * 5000) + "=1"])


@pytest.mark.parametrize("number", ["inf", "nan", "1e400", "-.inf", ".nan"])
def test_numbers_that_are_none_are_refused(number: str) -> None:
    for field in ("loss.cosine", "optimizer.lr", "optimizer.weight_decay", "optimizer.final_lr"):
        with pytest.raises(InputError, match=field.split(".")[1]):
            load_recipe("direct", [f"stages.student.{field}={number}"])


@pytest.mark.parametrize(
    ("override", "limit"),
    [
        ("data.workers=1000000", "1024"),
        ("stages.student.steps=1000000000000", "1000000000"),
        ("stages.student.batch_size=100000000000", "1048576"),
        ("stages.student.head_hidden=1000000000", "65536"),
        ("stages.student.students.student.resolution=1000000", "16384"),
        ("stages.student.accumulate=10000000000", "1048576"),
        ("stages.student.views=10000000000", "1000000"),
        ("seed=" + "9" * 30, "9223372036854775807"),
        ("stages.student.optimizer.lr=1e300", "1000000"),
        ("data.augment.blur_kernel=1000000001", "1001"),
        ("data.augment.brightness=1e300", "1000"),
        ("data.augment.blur_sigma=[1.0,1.0e+300]", "1000"),
        ("data.augment.ratio=[1.0e-300,1.0]", "0.001"),
        ("stages.student.statistics.iterations=100000000000", "1000000000"),
    ],
)
def test_extreme_numbers_are_refused_with_their_limit(override: str, limit: str) -> None:
    name = next(iter(load_recipe("direct").stages["student"].students))
    with pytest.raises(InputError, match=limit):
        load_recipe("direct", [override.replace("students.student", f"students.{name}")])
