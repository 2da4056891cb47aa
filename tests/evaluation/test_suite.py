"""Suites carried out on benchmarks that cost nothing: what is kept, resumed, refused."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

from openeupe.config import packaged_names
from openeupe.encoders import Encoder, create
from openeupe.errors import InputError
from openeupe.evaluation import suite as suites
from openeupe.evaluation.benchmark import Chain, EvaluatedEncoder
from openeupe.evaluation.features import Features, Precision
from openeupe.evaluation.knn import Knn
from openeupe.evaluation.results import Results
from openeupe.evaluation.segmentation import Segmentation
from tests.lines import Lines

SUITE = """
name: colors
benchmarks:
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


def run(
    colors: Path,
    *overrides: str,
    only: list[str] | None = None,
    encoder: Encoder | None = None,
    precision: Precision = "fp32",
    chains: Mapping[str, Chain] | None = None,
    root: Path | None = None,
) -> tuple[Results, str]:
    suite = suites.load_suite(colors / "suite.yaml", list(overrides))
    encoder = encoder or create("raw_pixels").eval()
    out = colors / "out"
    said = Lines()
    results = suites.evaluate(
        suite,
        EvaluatedEncoder(encoder, Features(encoder, precision=precision), chains or {}),
        out,
        root=root or colors,
        source="pixels",
        only=only,
        progress=said,
    )
    return results, said.text


def test_scores_and_reasons(colors: Path) -> None:
    results, said = run(colors)
    knn = results.benchmarks["knn"]
    assert knn.score is not None
    assert (knn.score.name, knn.score.value) == ("top1@1", 100)
    assert "no head leads" in said or "n/a" in said
    assert results.benchmarks["zero_shot"].missing
    assert len(knn.data) == 2
    assert knn.benchmark.protocol_hash
    assert results.config.model == "pixels"
    assert results.config.suite == "colors"
    assert Results.open(colors / "out") == results


def test_what_was_finished_is_kept(colors: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(colors)
    calls = []
    real = Knn.run
    monkeypatch.setattr(Knn, "run", lambda *a: calls.append(1) or real(*a))
    _, said = run(colors)
    assert calls == []
    assert "knn: 100.0 %, already evaluated" in said
    run(colors, "benchmarks.knn.vote=majority")  # another protocol
    assert calls == [1]
    Image.new("RGB", (50, 50)).save(colors / "colors/test/red/2.png")  # other data
    run(colors, "benchmarks.knn.vote=majority")
    assert calls == [1, 1]


def test_some_benchmarks_first_the_others_later(colors: Path) -> None:
    results, _ = run(colors, only=["knn"])
    assert list(results.benchmarks) == ["knn"]
    results, _ = run(colors, only=["zero_shot"])
    assert set(results.benchmarks) == {"knn", "zero_shot"}


def test_some_benchmarks_first_leaves_out_those_of_another_encoder(colors: Path) -> None:
    run(colors)
    for changed in (
        {"encoder": create("test_resnet").eval()},
        {"precision": "bf16"},
    ):
        results, said = run(colors, only=["knn"], **changed)  # type: ignore[arg-type]
        assert list(results.benchmarks) == ["knn"]
        assert "zero_shot: left out, evaluated with another encoder" in said
    results, _ = run(colors, only=["knn"])
    assert set(results.benchmarks) == {"knn", "zero_shot"}


def test_some_benchmarks_first_leaves_out_those_of_other_settings(colors: Path) -> None:
    run(colors)
    results, said = run(colors, "benchmarks.knn.k=[2]", only=["zero_shot"])
    assert list(results.benchmarks) == ["zero_shot"]
    assert "knn: left out" in said


def test_other_heads_are_evaluated_again(colors: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Head:
        def __init__(self, identity: str) -> None:
            self.identity = identity

        def __call__(self, cls: Tensor) -> Tensor:
            return cls

    calls = counted(monkeypatch, Knn)
    for identity, expected in (("a", 1), ("a", 1), ("b", 2)):
        run(colors, only=["knn"], chains={"hed": Head(identity)})
        assert len(calls) == expected


def test_damaged_samples_are_evaluated_again(colors: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(colors)
    (colors / "out/benchmarks/knn.npz").write_bytes(b"cut off")
    results, said = run(colors, only=["zero_shot"])
    assert list(results.benchmarks) == ["zero_shot"]
    assert "knn: left out, its samples are damaged: evaluate it again" in said
    calls = counted(monkeypatch, Knn)
    run(colors)
    run(colors)
    assert calls == [1]


def write_other_data(colors: Path) -> Path:
    """The same images under another `--data`, but for one."""
    other = colors / "other"
    shutil.copytree(colors / "colors", other / "colors")
    Image.new("RGB", (40, 40)).save(other / "colors/test/red/0.png")
    return other


def test_some_benchmarks_first_leaves_out_those_of_other_data(
    colors: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(colors)
    other = write_other_data(colors)
    results, said = run(colors, only=["zero_shot"], root=other)
    assert list(results.benchmarks) == ["zero_shot"]
    assert "knn: left out, evaluated with other data: evaluate it again" in said
    calls = counted(monkeypatch, Knn)
    results, _ = run(colors, only=["zero_shot"])  # the old --data: what is saved is of it
    assert set(results.benchmarks) == {"knn", "zero_shot"}
    shutil.rmtree(other / "colors/train/blue")
    moved = "benchmarks.zero_shot.data={layout: scenes, count: 8}"
    results, said = run(colors, moved, only=["zero_shot"], root=other)
    assert list(results.benchmarks) == ["zero_shot"]
    assert "knn: left out, its data cannot be opened here" in said
    assert calls == []


def test_benchmarks_of_equal_settings_are_both_evaluated(colors: Path) -> None:
    twin = (
        "benchmarks.knn-twin={kind: knn, protocol: knn/test-v1, k: [1], short: 32, crop: 32, data: "
    )
    twin += "{layout: folder, path: colors}}"
    run(colors, twin, only=["knn-twin"])
    results, _ = run(colors, twin)
    assert set(results.benchmarks) == {"knn", "knn-twin", "zero_shot"}


def counted(monkeypatch: pytest.MonkeyPatch, kind: type) -> list[int]:
    """Grows by one each time that a benchmark of this kind is carried out."""
    calls: list[int] = []
    real = kind.run
    monkeypatch.setattr(kind, "run", lambda *a: calls.append(1) or real(*a))
    return calls


def test_masks_that_moved_and_classes_renamed_are_evaluated_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same names, the same bytes a file: only what the labels say has changed."""
    random = np.random.default_rng(0)
    for part in ("train", "test"):
        for kind in ("images", "masks"):
            (tmp_path / part / kind).mkdir(parents=True)
        for number in range(4):
            mask = np.zeros((32, 32), np.uint8)
            mask[:, :16] = 1
            pixels = random.integers(0, 90, (32, 32, 3), np.uint8) + 160 * mask[..., None]
            Image.fromarray(pixels).save(tmp_path / part / f"images/{number}.png")
            Image.fromarray(mask).save(tmp_path / part / f"masks/{number}.bmp")
    (tmp_path / "names.yaml").write_text("{0: dark, 1: light}")
    (tmp_path / "suite.yaml").write_text("""
name: halves
benchmarks:
  segmentation:
    kind: segmentation
    variant: {name: cached, height: 32, width: 32, steps: 60, batch_size: 4, warmup_steps: 5}
    seeds: 1
    data:
      layout: folder
      path: .
      train: {images: train/images, labels: train/masks}
      test: {images: test/images, labels: test/masks}
      names: names.yaml
""")
    calls = counted(monkeypatch, Segmentation)

    def miou() -> float:
        results, _ = run(tmp_path)
        return float(results.benchmarks["segmentation"].metrics["miou"].value or 0)

    first = miou()
    assert miou() == first
    assert len(calls) == 1
    for file in (tmp_path / "test/masks").iterdir():
        shifted = np.roll(np.asarray(Image.open(file)), 8, axis=1)
        before = file.stat().st_size
        Image.fromarray(shifted).save(file)
        assert file.stat().st_size == before
    assert miou() < first - 20
    assert len(calls) == 2
    (tmp_path / "names.yaml").write_text("{0: light, 1: dark}")
    miou()
    assert len(calls) == 3


def test_bad_data_are_told_before_anything_runs(
    colors: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def long_work(*_: object) -> None:
        raise AssertionError("began before all data were checked")

    monkeypatch.setattr(Knn, "run", long_work)
    with pytest.raises(InputError, match=r"benchmark zero_shot: .*benchmarks.zero_shot=null"):
        run(colors, "benchmarks.zero_shot.data.path=nowhere")


def test_unknown_benchmarks_and_settings(colors: Path) -> None:
    with pytest.raises(InputError, match="no benchmark depht: it has knn, zero_shot"):
        run(colors, only=["depht"])
    with pytest.raises(InputError, match=r"benchmarks.knn.*unknown key.*did you mean"):
        run(colors, "benchmarks.knn.temperatur=1")
    with pytest.raises(InputError, match="no such file, nor a suite of the package"):
        suites.load_suite("mimi")


@pytest.mark.parametrize("kind", ["segmentation", "boundaries", "depth"])
def test_parts_of_the_same_images_are_refused(kind: str, tmp_path: Path) -> None:
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
        Image.new("L", (16, 16), 1).save(tmp_path / folder / "0.png")
    part = "{images: images, labels: labels}"
    classes = "" if kind == "depth" else ", classes: 2"
    (tmp_path / "suite.yaml").write_text(
        f"name: s\nbenchmarks: {{c: {{kind: {kind}, data: {{layout: folder, path: ., "
        f"train: {part}, test: {part}{classes}}}}}}}"
    )
    with pytest.raises(InputError, match=r"benchmark c: .*train and test are the same 1 images"):
        run(tmp_path)


def test_a_benchmark_named_like_another_ones_outcome_is_refused() -> None:
    """Both would write `vlm-exist.json`."""
    clash = "benchmarks.vlm-exist={kind: knn, data: {layout: scenes}}"
    with pytest.raises(InputError, match="vlm-exist is named like an outcome of vlm"):
        suites.load_suite("mini", [clash])
    suites.load_suite("mini", [clash.replace("vlm-exist", "knn-exist")])


def test_neighbours_are_counted_from_one() -> None:
    with pytest.raises(InputError, match=r"benchmarks\.knn.*k\.1.*greater than or equal to 1"):
        suites.load_suite("mini", ["benchmarks.knn.k=[10,-1]"])


def test_packaged_suites_are_valid() -> None:
    assert packaged_names("suite") == ["eupe", "mini", "quickstart"]
    eupe = suites.load_suite("eupe").benchmarks
    assert {c.kind for c in eupe.values()} >= {
        "knn", "zero_shot", "segmentation", "depth", "correspondence", "vlm"
    }  # fmt: skip
    mini = suites.load_suite("mini").benchmarks
    assert {c.kind for c in mini.values()} == {
        "knn", "zero_shot", "zero_shot_ridge", "segmentation", "depth", "correspondence", "text",
        "boundaries", "vlm_mini",
    }  # fmt: skip
