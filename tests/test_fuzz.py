"""A slice of `python -m tests.fuzz`, and overrides of every shape from hypothesis."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openeupe.distillation.recipe import load_recipe
from openeupe.errors import InputError

from .fuzz.kinds import KINDS
from .fuzz.trying import WRONG, attempt

SLOW = {"manifest", "curate's work", "run", "report", "checkpoint", "export"}  # seconds each


@pytest.mark.parametrize("kind", KINDS)
def test_malformed_inputs_are_read_or_refused_in_one_line(kind: str) -> None:
    tried = [attempt(kind, seed) for seed in range(1 if kind in SLOW else 4)]
    assert not [one for one in tried if one.outcome in WRONG]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_hundreds_of_malformed_inputs(kind: str) -> None:
    tried = [attempt(kind, seed) for seed in range(300)]
    assert not [one for one in tried if one.outcome in WRONG]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(["stages", "proxy", "data", "0", "steps", "loss", "x"]), max_size=4),
    st.text(max_size=20)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=3), inner),
        max_leaves=5,
    ).map(str),
)
def test_overrides_of_any_shape(path: list[str], value: str) -> None:
    lines = 1
    try:
        load_recipe("direct", [f"{'.'.join(path)}={value}"])
    except InputError as error:
        lines += str(error).count("\n")
    assert lines == 1
