import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from openeupe.encoders import create
from openeupe.errors import InputError
from openeupe.evaluation.compare import compare, mean_ranks, side_by_side
from openeupe.evaluation.machine import commit
from openeupe.evaluation.measure import Outcome, mean_measure
from openeupe.evaluation.records import (
    BenchmarkIdentity,
    BenchmarkResult,
    Conditions,
    Domain,
    EncoderIdentity,
    EvaluationInfo,
)
from openeupe.evaluation.results import (
    Results,
    benchmark_names,
    check_samples,
    read_benchmark,
    read_measure,
)
from openeupe.evaluation.results_writer import gather, save_benchmark
from openeupe.identity import encoder_identity, file_identity, settings_identity

from ..recorded import Disk

NAMES = [f"image-{i:03}" for i in range(120)]


def info(model: str) -> EvaluationInfo:
    return EvaluationInfo(
        model=model,
        model_args={},
        parameters=1,
        encoder="e",
        precision="fp32",
        device="cpu",
        suite="s",
    )


def save(
    folder: Path,
    name: str,
    outcome: Outcome | str,
    domain: Domain = "image",
    data: Sequence[str] = ("aa", "bb"),
    **changes: object,
) -> None:
    """Save a result whose benchmark has these settings, as `evaluate` does."""
    benchmark = {"protocol": "knn/eupe-v1", "protocol_hash": "0011", "settings": {"k": 10}}
    conditions = Conditions(
        encoder=EncoderIdentity(identity="e", heads={}),
        precision="fp32",
        benchmark=BenchmarkIdentity(**{"name": name, "domain": domain, **benchmark, **changes}),
    )
    result = BenchmarkResult.of(
        name, outcome, conditions, data=list(data), outcomes=[name], seconds=1.0
    )
    save_benchmark(folder, result, None if isinstance(outcome, str) else outcome)


def made(folder: Path, accuracy: float, error: float, **changes: Any) -> Results:
    """Results with an accuracy and an error; of 120 images the first so many are right."""
    right = np.arange(120) < accuracy * 120
    knn = mean_measure(NAMES, right, scale=100, unit="%")
    rmse = mean_measure(NAMES, np.full(120, error), higher_is_better=False, unit="m")
    save(folder, "knn", Outcome("top1", {"top1": knn}, {"majority class": 8.0}), **changes)
    save(folder, "depth", Outcome("rmse", {"rmse": rmse}), "dense", **changes)
    save(folder, "zero_shot", "no text-aligned teacher", **changes)
    return gather(folder, ["knn", "depth", "zero_shot"], info(folder.name))


def test_samples_come_back_as_they_were(tmp_path: Path) -> None:
    results = made(tmp_path, 0.5, 0.4)
    measure = results.measure("knn")
    assert measure.value == 50
    assert list(measure.samples) == NAMES
    assert not results.measure("depth").higher_is_better
    assert benchmark_names(tmp_path) == ["depth", "knn", "zero_shot"]


def test_what_is_cut_off_while_it_is_replaced_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(tmp_path, 0.5, 0.4)
    better = mean_measure(NAMES, np.ones(120), scale=100, unit="%")

    replace = Path.replace

    def killed(self: Path, target: Path) -> Path:
        if target.name == "knn.json":
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, "knn", Outcome("top1", {"top1": better}), settings={"k": 1})
    assert read_benchmark(tmp_path, "knn") is None  # not k = 10's metrics with k = 1's samples
    assert not Results.there(tmp_path)


def test_what_is_replaced_leaves_no_answers_behind(tmp_path: Path) -> None:
    measure = mean_measure(NAMES, np.ones(120), scale=100, unit="%")
    outcome = Outcome("accuracy", {"accuracy": measure}, answers=[{"said": "yes"}])
    save(tmp_path, "vlm-exist", outcome, "language")
    save(tmp_path, "vlm-exist", "no patch tokens", "language")
    assert [path.name for path in tmp_path.rglob("*.*")] == ["vlm-exist.json"]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="reads /proc")
def test_a_benchmark_is_on_the_disk_before_it_counts_as_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(tmp_path)
    disk.watch(monkeypatch)
    made(tmp_path, 0.5, 0.4)
    samples = disk.settled(tmp_path / "benchmarks" / "knn.npz")
    assert samples < disk.first("rename", tmp_path / "benchmarks" / "knn.json")
    finished = disk.settled(tmp_path / "benchmarks" / "knn.json")
    assert finished < disk.first("rename", tmp_path / "results.json")
    disk.settled(tmp_path / "results.json")


def test_a_full_disk_is_one_line_and_what_was_finished_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(tmp_path, 0.5, 0.4)
    before = {p.name: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    for writes in ("numpy.savez_compressed", "openeupe.evaluation.results_writer.strict_json"):
        with monkeypatch.context() as patch:
            patch.setattr(writes, full)
            with pytest.raises(InputError, match=r"No space left.*free space"):
                made(tmp_path, 0.6, 0.3)
        assert {p.name: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_results_json_has_the_shape_of_lm_eval(tmp_path: Path) -> None:
    made(tmp_path, 0.5, 0.4)
    content = json.loads((tmp_path / "results.json").read_text())
    assert content["results"]["knn"]["top1,none"] == 50
    assert content["results"]["knn"]["top1_stderr,none"] == pytest.approx(4.56, rel=0.1)
    assert content["versions"]["knn"] == "knn/eupe-v1"
    assert content["configs"]["knn"] == {"k": 10}
    assert content["n-samples"]["knn"]["effective"] == 120
    assert "zero_shot" not in content["results"]
    assert content["benchmarks"]["zero_shot"]["missing"] == "no text-aligned teacher"
    assert "torch" in content["packages"]


def test_the_commit_is_that_of_the_package(tmp_path: Path) -> None:
    """Not that of a repository which an installed package happens to lie in."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    me = ["-c", "user.name=a", "-c", "user.email=a@b.c"]

    def git(*words: str) -> str:
        command = ["git", "-C", str(tmp_path), *me, *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    ours, foreign = tmp_path / "ours.py", tmp_path / "venv" / "foreign.py"
    foreign.parent.mkdir()
    for file in (ours, foreign):
        file.write_text("")
    assert commit(ours) is None
    git("init", "-q")
    git("add", "ours.py")
    git("commit", "-q", "-m", "first")
    assert commit(ours) == git("rev-parse", "HEAD")
    assert commit(foreign) is None
    ours.write_text("changed = True")
    assert commit(ours) == git("rev-parse", "HEAD") + "-dirty"


def test_comparison_knows_which_way_is_better(tmp_path: Path) -> None:
    a, b = made(tmp_path / "a", 0.8, 0.3), made(tmp_path / "b", 0.5, 0.2)
    found = {c.benchmark: c for c in compare(a, b).rows}
    assert set(found) == {"knn", "depth"}
    assert found["knn"].verdict == "better"
    assert found["knn"].gain.delta == pytest.approx(30)
    assert found["depth"].verdict == "worse"
    assert found["depth"].gain.delta == pytest.approx(-0.1)
    assert found["depth"].gain.low == pytest.approx(-0.1)
    assert all(c.p >= c.gain.p for c in found.values())
    assert mean_ranks([a, b]) == [1.5, 1.5]


def test_near_equal_encoders_are_not_told_apart(tmp_path: Path) -> None:
    a, b = made(tmp_path / "a", 0.5, 0.3), made(tmp_path / "b", 0.51, 0.3)
    assert {c.verdict for c in compare(a, b).rows} == {"no difference shown"}


@pytest.mark.parametrize("changes", [{"protocol_hash": "other"}, {"data": ["cc"]}])
def test_what_cannot_be_compared_is_refused(tmp_path: Path, changes: dict[str, object]) -> None:
    a, b = made(tmp_path / "a", 0.5, 0.3), made(tmp_path / "b", 0.5, 0.3, **changes)
    with pytest.raises(InputError, match=r"benchmark knn.*evaluated with other"):
        compare(a, b)


def test_tables_say_what_is_missing_and_why(tmp_path: Path) -> None:
    a, b = made(tmp_path / "a", 0.5, 0.3), made(tmp_path / "b", 0.6, 0.2)
    table = a.table()
    cells = {row[0]: dict(zip(table.header, row, strict=True)) for row in table.rows}
    assert list(cells) == ["knn top1", "zero_shot", "depth rmse ↓"]  # by domain
    assert cells["zero_shot"]["score"] == "n/a"
    assert a.notes() == ["zero_shot: n/a, no text-aligned teacher"]
    assert cells["knn top1"]["baseline"] == "8.0 majority class"
    assert cells["depth rmse ↓"]["score"] == "0.300"
    text = side_by_side([a.only(["knn", "zero_shot"]), b.only(["knn", "zero_shot"])]).markdown()
    assert text.splitlines()[0] == "| benchmark | a | b |"
    assert "| knn top1 | 50.0 ± " in text
    assert "| zero_shot | n/a | n/a |" in text


def test_unresolved_scores_are_flagged(tmp_path: Path) -> None:
    measure = mean_measure(NAMES, np.ones(120), scale=100, unit="%")
    outcome = Outcome("accuracy", {"accuracy": measure}, details={"resolved": False})
    save(tmp_path, "vlm-exist", outcome, "language")
    results = gather(tmp_path, ["vlm-exist"], info("x"))
    assert results.table().rows[0][1] == "100.0 ?"
    assert "not resolved" in results.notes()[0]


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    results = made(tmp_path, 0.5, 0.4)
    assert Results.open(tmp_path) == results
    assert json.loads(json.dumps(results.to_json())) == json.loads(
        (tmp_path / "results.json").read_text()
    )
    assert results.benchmarks["knn"].score == results.benchmarks["knn"].metrics["top1"]
    assert results.benchmarks["zero_shot"].score is None


def test_fingerprint_is_of_the_weights() -> None:
    a, b = create("eupe_vit_t", depth=1), create("eupe_vit_t", depth=1)
    assert encoder_identity(a) == encoder_identity(a)
    assert encoder_identity(a) != encoder_identity(b)
    b.load_state_dict(a.state_dict())
    assert encoder_identity(a) == encoder_identity(b)
    assert settings_identity({"a": 1, "b": 2}) == settings_identity({"b": 2, "a": 1})


def test_damaged_results_name_the_file(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text("{")
    (tmp_path / "benchmarks").mkdir()
    with pytest.raises(InputError, match=r"results.json is damaged.*evaluate again"):
        Results.open(tmp_path)
    with pytest.raises(InputError, match="run openeupe evaluate first"):
        Results.open(tmp_path / "nowhere")


def test_a_probe_of_one_seed_gets_no_verdict(tmp_path: Path) -> None:
    a = made(tmp_path / "a", 0.8, 0.3, settings={"seeds": 1})
    b = made(tmp_path / "b", 0.5, 0.3, settings={"seeds": 1})
    comparison = compare(a.only(["knn"]), b)
    (found,) = comparison.rows
    assert found.p < 0.05
    assert found.verdict == "one seed: no verdict"
    said = comparison.summary()
    assert "better on 0 benchmarks, worse on 0; no difference shown on 0" in said
    assert "No verdict on 1" in said


def test_samples_of_another_evaluation_are_refused(tmp_path: Path) -> None:
    """Whole files, but the metrics of one next to the samples of the other."""
    good, bad = made(tmp_path / "good", 0.5, 0.4), made(tmp_path / "bad", 0.6, 0.5)
    shutil.copy(good.folder / "benchmarks" / "knn.npz", bad.folder / "benchmarks" / "knn.npz")
    for use in (
        lambda: bad.measure("knn"),
        lambda: Results.open(bad.folder),
        lambda: compare(good, bad),
    ):
        with pytest.raises(InputError, match=r"bad/benchmarks/knn\.npz .*evaluate again"):
            use()
    check_samples(bad.folder, bad.benchmarks["depth"])


def test_benchmarks_that_were_exchanged_are_not_shown_under_old_metrics(tmp_path: Path) -> None:
    good, bad = made(tmp_path / "good", 0.5, 0.4), made(tmp_path / "bad", 0.6, 0.5)
    for ending in ("json", "npz"):
        file = f"benchmarks/knn.{ending}"
        shutil.copy(good.folder / file, bad.folder / file)
    with pytest.raises(InputError, match=r"bad/results\.json is not of .*knn.*evaluate again"):
        Results.open(bad.folder)


@pytest.mark.parametrize(
    "damage",
    [
        *(b"", b"null", b"[]", b"{}", b"{", b"[" * 20000, b"\xff\xfe", b'{"benchmarks": 3}'),
        *(b'{"config": {"model": 3}, "benchmarks": {}}', b'{"headline": "x", "metrics": {}}'),
        *(b"1" * 5000, b'{"a": NaN}'),
    ],
)
@pytest.mark.parametrize("name", ["results.json", "benchmarks/knn.json", "benchmarks/knn.npz"])
def test_damaged_results_are_one_line(damage: bytes, name: str, tmp_path: Path) -> None:
    made(tmp_path, 0.6, 0.5)
    (tmp_path / name).write_bytes(damage)
    with pytest.raises(InputError, match=f"{name}.*evaluate again"):
        Results.open(tmp_path)


def test_values_of_another_kind_are_refused(tmp_path: Path) -> None:
    for field, value in (
        ("value", "x"), ("low", [1]), ("samples", None), ("reduction", "no such"),
        ("scale", None), ("unit", 3), ("higher_is_better", "no"), ("unknown", 1),
    ):  # fmt: skip
        made(tmp_path / field, 0.5, 0.4)
        path = tmp_path / field / "benchmarks" / "knn.json"
        content = json.loads(path.read_text())
        content["metrics"]["top1"][field] = value
        path.write_text(json.dumps(content))
        with pytest.raises(InputError, match=rf"knn.json is damaged \(metrics.top1.{field}: "):
            Results.open(tmp_path / field)


def test_samples_of_another_shape_are_refused(tmp_path: Path) -> None:
    sums, samples = np.ones((1, 120, 2)), np.asarray(NAMES)
    for number, arrays in enumerate(
        (
            {"top1:sums": sums},
            {"top1:samples": samples},
            {"top1:sums": sums[0], "top1:samples": samples},
            {"top1:sums": sums[:, :3], "top1:samples": samples},
            {"top1:sums": sums[..., :1], "top1:samples": samples},
            {"top1:sums": sums[:0], "top1:samples": samples},
            {"top1:sums": sums * np.nan, "top1:samples": samples},
            {"top1:sums": sums.astype(str), "top1:samples": samples},
            {"top1:sums": sums * 1j, "top1:samples": samples},
        )
    ):
        folder = tmp_path / str(number)
        knn = made(folder, 0.5, 0.4).benchmarks["knn"]
        path = folder / "benchmarks" / "knn.npz"
        np.savez(path, **arrays)
        # As a faulty writer would have left it.
        knn = knn.model_copy(update={"samples_digest": file_identity(path)})
        with pytest.raises(InputError, match=r"knn\.npz"):
            read_measure(folder, knn)


def test_scores_that_are_no_numbers_are_left_out_of_tables_and_ranks(tmp_path: Path) -> None:
    """NaN is written as null: a mean over no samples."""
    made(tmp_path, 0.5, 0.4)
    for path in (tmp_path / "benchmarks" / "knn.json", tmp_path / "results.json"):
        content = json.loads(path.read_text())
        benchmark = content["benchmarks"]["knn"] if "benchmarks" in content else content
        benchmark["metrics"]["top1"] |= {"value": None, "low": None, "high": None}
        path.write_text(json.dumps(content))
    results = Results.open(tmp_path)
    assert "n/a" in side_by_side([results, results]).rows[0][1]
    assert mean_ranks([results, results]) == [1.5, 1.5]


def test_results_of_older_formats_are_refused_in_one_line(tmp_path: Path) -> None:
    made(tmp_path, 0.5, 0.4)
    file = tmp_path / "results.json"
    content = json.loads(file.read_text())
    assert content["format"] == 4
    file.write_text(json.dumps(content | {"format": 2}))
    with pytest.raises(InputError, match=r"results.json has format 2, this version reads 4: del"):
        Results.open(tmp_path)
    content.pop("format")
    content["columns"] = content.pop("benchmarks")
    file.write_text(json.dumps(content))
    (tmp_path / "benchmarks").rename(tmp_path / "columns")
    with pytest.raises(InputError, match=r"results.json has format 1, this version reads 4: del"):
        Results.open(tmp_path)
