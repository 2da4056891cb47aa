"""Settings from YAML: nothing that a user wrote vanishes or changes its value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from openeupe.ablation.study import load_study
from openeupe.config import Config, load_settings, read_settings
from openeupe.distillation.recipe import load_recipe
from openeupe.errors import InputError
from openeupe.evaluation.suite import load_suite
from openeupe.plain_yaml import parse_yaml


class _Numbers(Config):
    seed: int = 0
    name: str = ""


@pytest.mark.parametrize(
    "text", ["seed: 1\nseed: 2", "{seed: 1, seed: 1}", "a: {b: 1, c: 2, b: 3}", "- {a: 1, a: 2}"]
)
def test_a_key_that_is_given_twice_is_refused(text: str) -> None:
    with pytest.raises(yaml.YAMLError, match="twice"):
        parse_yaml(text)


def test_the_message_names_file_key_and_both_lines(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("seed: 1\nname: x\nseed: 2\n")
    with pytest.raises(InputError, match=r"a\.yaml.*seed.*lines 1 and 3"):
        load_settings(_Numbers, "recipe", tmp_path / "a.yaml")


def test_an_override_with_a_duplicate_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("seed: 1\n")
    with pytest.raises(InputError, match="twice"):
        read_settings("recipe", tmp_path / "a.yaml", ["a={b: 1, b: 2}"])


def test_anchors_and_merged_mappings_still_work() -> None:
    text = "a: &x {p: 1, q: 2}\nb: {<<: *x, q: 3}\nc: *x\n"
    assert parse_yaml(text)["b"] == {"p": 1, "q": 3}


@pytest.mark.parametrize(("text", "seed"), [("010", 10), ("-010", -10), ("08", 8), ("0x10", 16)])
def test_digits_are_decimal_whatever_they_begin_with(tmp_path: Path, text: str, seed: int) -> None:
    (tmp_path / "a.yaml").write_text(f"seed: {text}\n")
    assert load_settings(_Numbers, "recipe", tmp_path / "a.yaml").seed == seed
    assert load_settings(_Numbers, "recipe", tmp_path / "a.yaml", [f"seed={text}"]).seed == seed


def test_a_clock_time_is_no_number() -> None:
    assert parse_yaml("[1:30, 16:9, 1_000, 0]") == ["1:30", "16:9", 1000, 0]


@pytest.mark.parametrize("name", ["010", "08", "1:30", "0o10", "1e5", "on", "0x1", "1_0"])
def test_what_is_dumped_is_read_back_equal(name: str) -> None:
    assert parse_yaml(yaml.safe_dump({"name": name, name: 1})) == {"name": name, name: 1}


def test_words_stay_as_they_are_written() -> None:
    words: Any = parse_yaml("{010: no, 1e3: null, on: 1_0}", words=True)
    assert words == {"010": "no", "1e3": "null", "on": "1_0"}


def test_another_layout_of_data_inherits_nothing_of_the_one_before(tmp_path: Path) -> None:
    """Settings of scenes mean nothing for a folder, and would be refused there."""
    file = tmp_path / "mine.yaml"
    file.write_text("base: mini\nbenchmarks: {knn: {data: {layout: folder, path: /data/birds}}}")
    knn = read_settings("suite", file)["benchmarks"]["knn"]
    assert knn["data"] == {"layout": "folder", "path": "/data/birds"}
    assert knn["kind"] == "knn"
    for order in (["layout=folder", "path=/x"], ["path=/x", "layout=folder"]):
        overrides = [f"benchmarks.knn.data.{setting}" for setting in order]
        data = read_settings("suite", "mini", overrides)["benchmarks"]["knn"]["data"]
        assert data == {"layout": "folder", "path": "/x"}
    same = read_settings("suite", "mini", ["benchmarks.knn.data.layout=scenes"])
    assert same["benchmarks"]["knn"]["data"]["count"] == 600


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("benchmarks.knn.data.path=x", "benchmarks.knn.data.path: unknown key"),
        ("benchmarks.knn.data={layout: folder}", "benchmarks.knn.data.path: is missing"),
        (
            "benchmarks.x={kind: knn, protocol: x/v1, domain: image, data: {count: 3}}",
            "benchmarks.x.data.layout: is missing",
        ),
        (
            "benchmarks.knn.data={layout: tar}",
            "benchmarks.knn.data.layout: 'tar' is none of 'folder'",
        ),
        ("benchmarks.knn.data=3", "benchmarks.knn.data: needs settings"),
        ("benchmarks.depth.variant.step=3", "benchmarks.depth.variant.step: unknown key"),
        ("benchmarks.vlm.grid=8", "benchmarks.vlm: the reader reads grid 7"),
        ("benchmarks.knn.kind=nn", "benchmarks.knn.kind: 'nn' is none of "),
    ],
)
def test_messages_name_settings_as_the_file_has_them(change: str, told: str) -> None:
    """Not the alternatives by which pydantic tells apart what kinds of settings there are."""
    with pytest.raises(InputError) as error:
        load_suite("mini", [change])
    assert f"suite mini: {told}" in str(error.value)


def test_the_working_directory_replaces_no_file_of_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("mini", "quickstart", "stages"):
        (tmp_path / name).write_text("name: another")
    assert load_suite("mini").name == "mini"
    assert load_recipe("quickstart").name == "quickstart"
    assert load_study("stages").suite.name == "mini"
    (tmp_path / "mini.yaml").write_text("base: mini\nname: own")
    assert load_suite("mini.yaml").name == "own"


def test_a_base_is_next_to_its_file_or_in_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "suites").mkdir()
    file = tmp_path / "suites" / "own.yaml"
    file.write_text("base: first.yaml")
    (tmp_path / "first.yaml").write_text("base: mini\nname: first")
    with pytest.raises(InputError, match=r"base first\.yaml is no file in .*suites, and no suite"):
        load_suite(file)
    (tmp_path / "suites" / "first.yaml").write_text("base: mini\nname: near")
    assert load_suite(file).name == "near"
