"""Suites carried out on columns that cost nothing: what is kept, resumed, refused."""

import json
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from openeupe.config import packaged_names
from openeupe.encoders import create
from openeupe.errors import InputError
from openeupe.evaluate import suite as suites
from openeupe.evaluate.column import Judged
from openeupe.evaluate.features import Features
from openeupe.evaluate.knn import Knn

SUITE = """
name: colors
columns:
  knn:
    kind: knn
    protocol: knn/test-v1
    domain: image
    data: {layout: folder, path: colors}
    k: [1]
    short: 32
    crop: 32
  zero_shot:
    kind: zero_shot
    protocol: zero-shot/test-v1
    domain: image
    data: {layout: folder, path: colors}
"""


@pytest.fixture
def colors(tmp_path: Path) -> Path:
    """Red, green and blue images, and the suite file beside them."""
    for part, shade in (("train", 250), ("test", 200)):
        for place, name in enumerate(("red", "green", "blue")):
            folder = tmp_path / "colors" / part / name
            folder.mkdir(parents=True)
            for number in range(2):
                color = [0, 0, 0]
                color[place] = shade - number
                Image.new("RGB", (40, 40), tuple(color)).save(folder / f"{number}.png")
    (tmp_path / "suite.yaml").write_text(SUITE)
    return tmp_path


def run(colors: Path, *overrides: str, only: list[str] | None = None) -> tuple[dict, str]:
    suite = suites.load_suite(colors / "suite.yaml", list(overrides))
    encoder = create("raw_pixels").eval()
    out = colors / "out"
    with (colors / "log").open("w") as file:
        console = Console(file=file, width=200)
        content = suites.evaluate(
            suite,
            Judged(encoder, Features(encoder)),
            out,
            root=colors,
            source="pixels",
            only=only,
            console=console,
        )
    return content, (colors / "log").read_text()


def test_figures_and_reasons(colors: Path) -> None:
    content, said = run(colors)
    assert content["results"]["knn"]["top1@1,none"] == 100
    assert "no head leads" in said or "n/a" in said
    assert "missing" in content["columns"]["zero_shot"]
    column = content["columns"]["knn"]
    assert len(column["data"]) == 2
    assert column["protocol_hash"]
    assert content["config"]["model"] == "pixels"
    assert content["config"]["suite"] == "colors"
    assert json.loads((colors / "out/results.json").read_text()) == json.loads(json.dumps(content))


def test_what_was_finished_is_kept(colors: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(colors)
    calls = []
    real = Knn.run
    monkeypatch.setattr(Knn, "run", lambda *a: calls.append(1) or real(*a))
    _, said = run(colors)
    assert calls == []
    assert "knn: 100.0 %, kept" in said
    run(colors, "columns.knn.vote=majority")  # another protocol
    assert calls == [1]
    Image.new("RGB", (50, 50)).save(colors / "colors/test/red/2.png")  # other data
    run(colors, "columns.knn.vote=majority")
    assert calls == [1, 1]


def test_some_columns_first_the_others_later(colors: Path) -> None:
    content, _ = run(colors, only=["knn"])
    assert list(content["columns"]) == ["knn"]
    content, _ = run(colors, only=["zero_shot"])
    assert set(content["columns"]) == {"knn", "zero_shot"}


def test_bad_data_are_told_before_anything_runs(
    colors: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def long_work(*_: object) -> None:
        raise AssertionError("began before all data were checked")

    monkeypatch.setattr(Knn, "run", long_work)
    with pytest.raises(InputError, match=r"column zero_shot: .*columns.zero_shot=null"):
        run(colors, "columns.zero_shot.data.path=nowhere")


def test_unknown_columns_and_settings(colors: Path) -> None:
    with pytest.raises(InputError, match="no column depht: it has knn, zero_shot"):
        run(colors, only=["depht"])
    with pytest.raises(InputError, match=r"columns.knn.*unknown key.*did you mean"):
        run(colors, "columns.knn.temperatur=1")
    with pytest.raises(InputError, match="no such file, nor a suite of the package"):
        suites.load_suite("mimi")


def test_packaged_suites_are_valid() -> None:
    assert packaged_names("suite") == ["eupe", "mini"]
    eupe = suites.load_suite("eupe").columns
    assert {c.kind for c in eupe.values()} >= {
        "knn", "zero_shot", "segmentation", "depth", "correspondence", "vlm"
    }  # fmt: skip
    mini = suites.load_suite("mini").columns
    assert {c.kind for c in mini.values()} == {
        "knn", "zero_shot", "zero_shot_ridge", "segmentation", "depth", "correspondence", "text",
        "boundaries", "vlm_mini",
    }  # fmt: skip
