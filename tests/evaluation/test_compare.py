"""Comparisons rest on what `results.json` shows, and on equal settings and data."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from openeupe.errors import InputError
from openeupe.evaluation.benchmark import Benchmark
from openeupe.evaluation.compare import check_comparable, compare, mean_ranks
from openeupe.evaluation.results import read_benchmark
from openeupe.evaluation.results_writer import gather
from openeupe.evaluation.suite import Suite

from .test_results import info, made


def test_benchmarks_that_results_json_leaves_out_are_not_compared(tmp_path: Path) -> None:
    """After `--only`, the files of another encoder's benchmarks still lie in the folder."""
    a, b = made(tmp_path / "a", 0.8, 0.3), made(tmp_path / "b", 0.5, 0.2)
    a = gather(a.folder, ["knn"], info("a"))
    assert read_benchmark(a.folder, "depth") is not None
    assert [row.benchmark for row in compare(a, b).rows] == ["knn"]
    assert mean_ranks([a, b]) == [1.0, 2.0]


@pytest.mark.parametrize("changes", [{"protocol_hash": "other"}, {"data": ["cc"]}])
def test_results_of_other_settings_or_data_are_not_ranked(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    a, b = made(tmp_path / "a", 0.5, 0.3), made(tmp_path / "b", 0.5, 0.3, **changes)
    with pytest.raises(InputError, match=r"benchmark knn.*evaluated with other"):
        mean_ranks([a, b])


def test_a_benchmark_that_only_some_have_is_checked_as_well(tmp_path: Path) -> None:
    """It stands in the table, also where the first encoder lacks it."""
    first = made(tmp_path / "first", 0.5, 0.3).only(["depth"])
    others = [
        made(tmp_path / name, 0.5, 0.3, protocol_hash=name).only(["knn"])
        for name in ("second", "third")
    ]
    with pytest.raises(InputError, match=r"benchmark knn: .*second and .*third were evaluated"):
        check_comparable([first, *others])


def of(**changes: object) -> Benchmark:
    """The benchmark `k` of a suite with these settings."""
    settings = {"kind": "knn", "data": {"layout": "folder", "path": "a"}, **changes}
    return Suite.model_validate({"name": "s", "benchmarks": {"k": settings}}).benchmarks["k"]


def hash_of(benchmark: Benchmark) -> str:
    return benchmark.identity("k").protocol_hash


def test_equal_data_at_another_place_can_be_compared(tmp_path: Path) -> None:
    for place in ("a", "b/c"):
        for part, shade in (("train", 250), ("test", 200)):
            (tmp_path / place / part / "gray").mkdir(parents=True)
            Image.new("RGB", (40, 40), (shade,) * 3).save(tmp_path / place / part / "gray/0.png")
    here, there = of(), of(data={"layout": "folder", "path": "b/c"})
    assert hash_of(here) == hash_of(there)
    identities = [benchmark.identities(benchmark.open(tmp_path)) for benchmark in (here, there)]
    assert identities[0] == identities[1]
    assert hash_of(here) != hash_of(of(k=[5]))


KEYPOINTS = "image,keypoint,x,y\n" + "".join(
    f"{i}.png,{name},{x + i},{x}\n" for i in range(3) for name, x in (("eye", 4), ("tail", 20))
)


@pytest.mark.parametrize(
    ("settings", "changes"),
    [
        (
            {"kind": "correspondence", "data": {"layout": "csv", "path": "points.csv"}},
            {"margin": 0.3, "pairs": 2},
        ),
        (
            {"kind": "correspondence", "data": {"layout": "scenes", "count": 20}},
            {"count": 30, "seed": 1},
        ),
        ({"kind": "knn", "data": {"layout": "scenes"}}, {"count": 30, "seed": 1}),
        (
            {"kind": "depth", "data": {"layout": "scenes"}},
            {"count": 30, "test_count": 30, "seed": 1, "resolution": 64},
        ),
        (
            {"kind": "vlm_mini", "data": {"layout": "scenes"}},
            {"count": 30, "test_count": 30, "seed": 1, "resolution": 64},
        ),
        (
            {"kind": "text", "data": {"layout": "scenes"}},
            {"train_count": 30, "test_count": 30, "seed": 1},
        ),
        (
            {
                "kind": "segmentation",
                "data": {
                    "layout": "folder",
                    "path": ".",
                    "train": {"images": "images", "labels": "masks"},
                    "test": {"images": "others", "labels": "masks"},
                    "classes": 3,
                },
            },
            {"classes": 4, "ignore": [7], "zero_is_ignore": True},
        ),
        (
            {
                "kind": "depth",
                "data": {
                    "layout": "folder",
                    "path": ".",
                    "train": {"images": "images", "labels": "masks"},
                    "test": {"images": "others", "labels": "masks"},
                },
            },
            {"depth_scale": 5.0},
        ),
    ],
)
def test_settings_of_the_data_that_change_them_change_their_identity(
    settings: dict[str, Any], changes: dict[str, object], tmp_path: Path
) -> None:
    """They are no part of the protocol's hash, so that they must be in the data's."""
    for folder in ("images", "others", "masks", "."):
        (tmp_path / folder).mkdir(exist_ok=True)
        for i in range(3):
            gray = Image.new("L", (32, 32), i if folder == "masks" else 50 * len(folder) + i)
            gray.save(tmp_path / folder / f"{i}.png")
    (tmp_path / "points.csv").write_text(KEYPOINTS)
    benchmark = of(**settings)
    first = benchmark.identities(benchmark.open(tmp_path))
    for key, value in changes.items():
        other = of(**{**settings, "data": {**settings["data"], key: value}})
        assert other.identities(other.open(tmp_path)) != first, key
