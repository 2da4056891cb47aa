"""Kinds of input: each damages a copy of a good file and returns the command that reads it."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

import openeupe
from openeupe.distillation.recipe import load_recipe

from .faults import mutated, strange, strange_json, strange_text
from .good import STUDY, Good

Command = list[object]
_FORMS = ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"]
_SETTINGS = ["seed", "stages", "data.sources.0.path", "data.workers", "stages.student.steps",
             "stages.student.students.student.args", "stages.student.teachers.vit.encoder",
             "stages.student.optimizer.lr", "data.augment.scale", "a.b", ""]  # fmt: skip


def _yaml(value: Any) -> str:
    text: str = yaml.safe_dump(value, sort_keys=False, allow_unicode=False)
    return text


def _recipe(rng: random.Random, folder: Path, good: Good) -> Command:
    path, tiny = folder / "recipe.yaml", good.folder / "tiny.yaml"
    if rng.random() < 0.5:
        path.write_bytes(mutated(tiny.read_bytes(), rng))
    else:
        whole = load_recipe(tiny).model_dump(mode="json")
        path.write_text(_yaml(strange(whole, rng)))
    return ["plan", path]


def _option(rng: random.Random, folder: Path, good: Good) -> Command:
    tiny = good.folder / "tiny.yaml"
    value = rng.choice(
        [strange_text(rng), repr(strange({"a": [1, 2]}, rng)), "!!int x", "[", "9e9"]
    )
    value = value.replace("\x00", "0")  # no program can be given it
    return rng.choice(
        [
            ["plan", tiny, f"{rng.choice(_SETTINGS)}={value}"],
            ["plan", tiny, "--device", value],
            ["plan", tiny, "--devices", value],
            ["plan", value],
            ["look", value, good.images / "0.png", "--out", folder],
            ["look", "raw_pixels", good.images, "--patch", value, "--out", folder, "--only", "pca"],
            ["look", "raw_pixels", good.images, "--only", value, "--out", folder],
            ["look", "raw_pixels", good.images, "--mask", value, "--out", folder],
            ["evaluate", value, "--suite", good.folder / "suite.yaml", "--out", folder],
            ["evaluate", "raw_pixels", "--suite", value, "--only", "x", "--out", folder],
            ["evaluate", "raw_pixels", "--suite", good.folder / "suite.yaml", "--only", value,
             "--out", folder],
            ["save", value, folder / "out"],
            ["save", "raw_pixels", folder / "out", "--licence", value],
            ["compare", value, value],
            ["curate", "/dev" if value == "/" else value, "--out", folder / "m.parquet",
             "--encoder", "none"],
            ["curate", good.images, "--out", folder / "m.parquet", f"clusters={value}"],
            ["curate", good.images, "--out", folder / "m.parquet", f"shards={value}"],
            ["report", value],
            ["ablate", value, "--no-run"],
            ["export", "raw_pixels", "--to", value],
            ["export", "raw_pixels", "--to", "onnx", "--resolution", value],
            ["latency", value],
            ["push", value, value],
        ]
    )  # fmt: skip


def _suite(rng: random.Random, folder: Path, good: Good) -> Command:
    path = folder / "suite.yaml"
    name = rng.choice(["eupe", "mini"])
    text = (Path(openeupe.__file__).parent / "suites" / f"{name}.yaml").read_bytes()
    if rng.random() < 0.5:
        path.write_bytes(mutated(text, rng))
    else:
        path.write_text(_yaml(strange(yaml.safe_load(text), rng)))
    return ["evaluate", "raw_pixels", "--suite", path, "--only", "none of them", "--out", folder]


def _study(rng: random.Random, folder: Path, good: Good) -> Command:
    path = folder / "study.yaml"
    for name in ("suite.yaml", "tiny.yaml"):
        (folder / name).write_bytes((good.folder / name).read_bytes())
    if rng.random() < 0.5:
        path.write_bytes(mutated(_yaml(STUDY).encode(), rng))
    else:
        path.write_text(_yaml(strange(STUDY, rng)))
    return ["ablate", path, "--no-run", "--out", folder / "out"]


def _image(rng: random.Random, folder: Path, good: Good) -> Command:
    for number in range(3):
        form = rng.choice(_FORMS)
        ending = rng.choice(["png", "jpg", "tif", "bmp", "webp"])
        (folder / f"{number}.{ending}").write_bytes(mutated(good.encoded(form), rng))
    (folder / "good.png").write_bytes(good.encoded("PNG"))
    return _curated(folder, folder / "out")


def _curated(images: Path, out: Path) -> Command:
    return ["curate", images, "--out", out / "m.parquet", "--encoder", "none", "min_resolution=8"]


def _tar(rng: random.Random, folder: Path, good: Good) -> Command:
    (folder / "it.tar").write_bytes(mutated(good.tar(), rng))
    return _curated(folder / "it.tar", folder / "out")


def _damage(rng: random.Random, files: list[Path]) -> None:
    file = rng.choice(sorted(files))
    data = file.read_bytes()
    file.write_bytes(strange_json(data, rng) if file.suffix == ".json" else mutated(data, rng))


def _manifest(rng: random.Random, folder: Path, good: Good) -> Command:
    import pyarrow.parquet as pq

    made = good.copy("curated", folder) / "it.parquet"
    if rng.random() < 0.5:
        made.write_bytes(mutated(made.read_bytes(), rng))
    else:
        table = pq.read_table(made)
        about = strange_json(table.schema.metadata[b"openeupe"], rng)
        pq.write_table(table.replace_schema_metadata({b"openeupe": about}), made)
    return ["distill", good.folder / "tiny.yaml", f"data.sources.0.path={made}",
            "stages.student.steps=1", "--run", folder / "run", "--device", "cpu"]  # fmt: skip


def _work(rng: random.Random, folder: Path, good: Good) -> Command:
    made = good.copy("curated", folder)
    _damage(rng, [path for path in (made / "it.work").rglob("*") if path.is_file()])
    return ["curate", made / "photos", "--out", made / "it.parquet", "--encoder", "raw_pixels",
            "resolution=32", "min_resolution=8", "clusters=2", "--device", "cpu"]  # fmt: skip


def _labels(rng: random.Random, folder: Path, good: Good) -> Command:
    made = good.copy("labelled", folder)
    files = {
        "knn": [*made.glob("classes/*/*/*.png"), made / "classes.yaml"],
        "masks": [*made.glob("masks/*/*.png"), *made.glob("images/*/*.png"), made / "masks.yaml"],
        "depths": [*made.glob("depths/*/*.png")],
        "edges": [*made.glob("masks/*/*.png")],
        "points": [made / "points.csv"],
        "animal": [made / "CollectedData.csv"],
    }
    benchmark = rng.choice(sorted(files))
    _damage(rng, files[benchmark])
    return ["evaluate", "raw_pixels", "--suite", made / "suite.yaml", "--data", made,
            "--only", benchmark, "--out", folder / "out", "--device", "cpu"]  # fmt: skip


def _weights(rng: random.Random, folder: Path, good: Good) -> Command:
    form = rng.choice(["own", "timm", "transformers", "released"])
    made = good.copy(form, folder)
    files = [path for path in made.iterdir() if path.suffix in (".safetensors", ".pt", ".bin")]
    _damage(rng, files)
    return ["save", rng.choice(files) if form == "released" else made, folder / "out"]


def _config(rng: random.Random, folder: Path, good: Good) -> Command:
    made = good.copy(rng.choice(["own", "timm", "transformers"]), folder)
    _damage(rng, list(made.glob("*.json")))
    return ["save", made, folder / "out"]


def _results(rng: random.Random, folder: Path, good: Good) -> Command:
    made = good.copy("results", folder)
    _damage(rng, [path for path in made.rglob("*") if path.suffix in (".json", ".npz")])
    return ["compare", good.folder / "results", made]


def _run(rng: random.Random, folder: Path, good: Good) -> Command:
    made = good.copy("run", folder)
    _damage(rng, [path for path in made.rglob("*") if path.suffix in _READ])
    return rng.choice(
        [
            ["save", made, folder / "out"],
            ["distill", good.folder / "tiny.yaml", "--run", made, "--device", "cpu"],
            ["evaluate", made, "--suite", good.folder / "suite.yaml", "--only", "none of them"],
        ]
    )


_READ = {".json", ".jsonl", ".yaml", ".safetensors"}


def _report(rng: random.Random, folder: Path, good: Good) -> Command:
    made = good.copy("run", folder)
    good.copy("results", made).rename(made / "student" / "evaluations-cut")
    (made / "student" / "evaluations").mkdir()
    (made / "student" / "evaluations-cut").rename(made / "student" / "evaluations" / "cut")
    files = [path for path in made.rglob("*") if path.suffix in _READ - {".safetensors"}]
    _damage(rng, files)
    return ["report", made, "--device", "cpu"]


def _checkpoint(rng: random.Random, folder: Path, good: Good) -> Command:
    made = good.copy("cut", folder)
    _damage(rng, [path for path in made.rglob("*") if path.suffix in _READ])
    return ["distill", good.folder / "tiny.yaml", "stages.student.steps=3", "--run", made,
            "--device", "cpu"]  # fmt: skip


def _export(rng: random.Random, folder: Path, good: Good) -> Command:
    made = good.copy("export", folder)
    _damage(rng, [path for path in made.iterdir() if path.suffix in (".json", ".onnx")])
    return ["evaluate", made, "--suite", good.folder / "suite.yaml", "--out", folder / "out",
            "--device", "cpu"]  # fmt: skip


KINDS: dict[str, Callable[[random.Random, Path, Good], Command]] = {
    "recipe": _recipe,
    "option": _option,
    "suite": _suite,
    "study": _study,
    "image": _image,
    "tar shard": _tar,
    "manifest": _manifest,
    "curate's work": _work,
    "labels": _labels,
    "weights": _weights,
    "config": _config,
    "results": _results,
    "run": _run,
    "report": _report,
    "checkpoint": _checkpoint,
    "export": _export,
}
