"""A slice of `tests/fuzz.py`, and overrides of every shape from hypothesis."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openeupe.distill.recipe import load_recipe
from openeupe.errors import InputError

from .fuzz import KINDS, attempt


@pytest.mark.parametrize("kind", KINDS)
def test_malformed_inputs_are_refused_in_one_line(kind: str) -> None:
    assert not [wrong for seed in range(25) if (wrong := attempt(kind, seed))]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_thousands_of_malformed_inputs(kind: str) -> None:
    assert not [wrong for seed in range(1600) if (wrong := attempt(kind, seed))]


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
