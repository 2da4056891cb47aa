"""The commands that `crash_matrix.py` disturbs, and the tiny material that they work on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import yaml

from openeupe import encoders
from tests.tiny_recipe import network, write_colors

Words = Callable[[Path, Path], list[str]]  # (material, place to write to) -> command line
COMMANDS: dict[str, Words] = {
    "distill": lambda m, w: ["distill", f"{m}/recipe.yaml", "--run", f"{w}/run"],
    "evaluate": lambda m, w: ["evaluate", f"{m}/encoder", "--suite", f"{m}/suite.yaml",
                              "--data", f"{m}", "--out", f"{w}/results"],
    "curate": lambda m, w: ["curate", f"{m}/colors", "--encoder", f"{m}/encoder",
                            "shards=20KB", "min_resolution=8", "--out", f"{w}/set.parquet"],
    "ablate": lambda m, w: ["ablate", f"{m}/study.yaml", "--data", f"{m}", "--jobs", "2",
                            "--out", f"{w}/study"],
    "save": lambda m, w: ["save", f"{m}/encoder", f"{w}/saved"],
    "export": lambda m, w: ["export", f"{m}/encoder", "--to", "onnx", "--images", f"{m}/colors",
                            "--out", f"{w}/export"],
    "look": lambda m, w: ["look", f"{m}/encoder", f"{m}/colors/test/red", "--resolution", "64",
                          "--limit", "2", "--out", f"{w}/looks"],
    "report": lambda m, w: ["report", f"{m}/run", "--out", f"{w}/report.html"],
}  # fmt: skip


TO_BEGIN = "distill"  # its run in the material is what `report` reads


def prepare(material: Path) -> None:
    """Images, an encoder, a recipe, a suite and a study, all tiny."""
    knn = write_colors(material)
    encoders.save(encoders.create("test_vit"), material / "encoder")

    schedule = {"steps": 8, "batch_size": 4, "head_hidden": 16, "statistics": {"iterations": 1},
                "optimizer": {"lr": 1e-3}, "log_every": 1, "checkpoint_every": 3}  # fmt: skip
    experts = {"vit": network("test_vit"), "net": network("test_resnet")}
    proxy = {"teachers": experts, "students": {"proxy": network("test_vit2")}, **schedule}
    taught = {"teachers": {"proxy": {"encoder": "stage:proxy", "resolution": 32}},
              "students": {"student": network("test_vit")}, **schedule,
              "views": 1, "teacher_cache": "int8"}  # fmt: skip
    data = {"workers": 1, "sources": [{"path": f"{material}/colors/train"}]}
    stages = {"proxy": proxy, "student": taught}
    recipe = {"name": "tiny", "data": data, "stages": stages}
    suite = {"name": "colors", "benchmarks": {"knn": knn, "again": {**knn, "k": [3]}}}
    study = {"name": "tiny", "seeds": [0], "suite": "suite.yaml",
             "recipes": {"two": {"data": data | {"workers": 0}, "stages": stages}},
             "arms": {"two": {"recipe": "two"}, "pixels": {"encoder": "raw_pixels"}},
             "tables": {"all": {"reference": "two", "rows": ["two", "pixels"]}}}  # fmt: skip
    for name, content in (("recipe", recipe), ("suite", suite), ("study", study)):
        (material / f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
