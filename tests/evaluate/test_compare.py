"""Comparisons rest on what `results.json` shows, and on equal settings and data."""

from pathlib import Path

import pytest

from openeupe.errors import InputError
from openeupe.evaluate.compare import check_all, compare, mean_ranks

from .test_results import made


def test_columns_that_results_json_leaves_out_are_not_compared(tmp_path: Path) -> None:
    """After `--only`, the files of another encoder's columns still lie in the folder."""
    a, b = made(tmp_path / "a", 0.8, 0.3), made(tmp_path / "b", 0.5, 0.2)
    a.gather(["knn"], {"model": "a"})
    assert a.column("depth") is not None
    assert [found.column for found in compare(a, b, ["knn", "depth"])] == ["knn"]
    assert mean_ranks([a, b], ["knn", "depth"]) == [1.0, 2.0]


@pytest.mark.parametrize("changes", [{"protocol_hash": "other"}, {"data": ["cc"]}])
def test_results_of_other_settings_or_data_are_not_ranked(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    a, b = made(tmp_path / "a", 0.5, 0.3), made(tmp_path / "b", 0.5, 0.3, **changes)
    with pytest.raises(InputError, match=r"column knn.*evaluated with other"):
        mean_ranks([a, b], ["knn"])


def test_a_column_that_only_some_have_is_checked_as_well(tmp_path: Path) -> None:
    """It stands in the table, also where the first encoder lacks it."""
    first = made(tmp_path / "first", 0.5, 0.3)
    first.gather(["depth"], {"model": "first"})
    others = [made(tmp_path / name, 0.5, 0.3, protocol_hash=name) for name in ("second", "third")]
    for other in others:
        other.gather(["knn"], {"model": other.folder.name})
    with pytest.raises(InputError, match=r"column knn: .*second and .*third were evaluated"):
        check_all([first, *others], ["depth", "knn"])
