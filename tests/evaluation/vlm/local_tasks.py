"""Miniatures of the six benchmarks: generated documents with the original sets' fields, and task
files that read them with lmms-eval's own functions."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

TASKS = {
    "textvqa": "textvqa_val",
    "sqa": "scienceqa",
    "realworldqa": "realworldqa",
    "pope": "pope",
    "gqa": "gqa",
    "mme": "mme",
}
FILES = {"textvqa": "textvqa/textvqa_val.yaml", "sqa": "scienceqa/scienceqa.yaml"}
SPLITS = {"textvqa": "validation", "gqa": "testdev"}


def picture(number: int) -> Image.Image:
    r = random.Random(number)
    image = Image.new("RGB", (40 + number % 3 * 8, 32), tuple(r.randrange(256) for _ in range(3)))
    image.paste((r.randrange(256), 0, 0), (4, 4, 20, 20))
    return image


def documents(benchmark: str) -> list[dict[str, Any]]:
    """A few documents of a benchmark with the fields of its set."""
    docs: list[dict[str, Any]] = []
    for n in range(6):
        ask = {"image": picture(n), "question": f"what is {n}?", "question_id": f"q{n}"}
        if benchmark == "textvqa":
            truth = {
                "image_id": f"i{n // 2}",
                "answers": ["stop"] * 10,
                "ocr_tokens": ["stop", "x"],
            }
            docs.append({**ask, **truth})
        elif benchmark == "sqa":
            with_image = n % 2 == 0
            truth = {"hint": "", "choices": ["cat", "dog", "cow"][: 2 + n % 2], "answer": n % 2}
            docs.append({**ask, **truth, "image": picture(n) if with_image else None})
        elif benchmark == "realworldqa":
            docs.append({**ask, "image_path": f"{n}.webp", "answer": ["A", "B", "3"][n % 3]})
        elif benchmark == "pope":
            split = ["random", "popular", "adversarial"][n % 3]
            for answer in ("yes", "no"):
                docs.append(
                    {**ask, "image_source": f"COCO_{n}", "category": split, "answer": answer}
                )
        elif benchmark == "gqa":
            docs.append({**ask, "imageId": f"n{n // 3}", "answer": "cat"})
        elif benchmark == "mme":
            category = ["existence", "OCR", "code_reasoning"][n % 3]
            for answer in ("Yes", "No"):
                where = {"question_id": f"{category}/{n}.png", "category": category}
                question = f"Is it {n}? Please answer yes or no."
                docs.append({**ask, **where, "question": question, "answer": answer})
    return docs


def write_tasks(folder: Path) -> dict[str, str]:
    """Data and task files in `folder`; returns the tasks' names by benchmark."""
    import datasets
    import lmms_eval

    package = Path(lmms_eval.__file__).parent / "tasks"
    names = {}
    for benchmark in TASKS:
        data = folder / f"{benchmark}.parquet"
        docs = documents(benchmark)
        table = datasets.Dataset.from_dict({key: [d[key] for d in docs] for key in docs[0]})
        if benchmark != "sqa":
            table = table.cast_column("image", datasets.Image())
        split = SPLITS.get(benchmark, "test")
        table.to_parquet(data)
        names[benchmark] = f"local_{benchmark}"
        original = package / FILES.get(benchmark, f"{benchmark}/{benchmark}.yaml")
        task = {
            "include": str(original),
            "task": names[benchmark],
            "dataset_path": "parquet",
            "dataset_name": None,
            "dataset_kwargs": {"data_files": {split: str(data)}},
            "process_docs": None,  # GQA fetches its images from elsewhere
        }
        (folder / f"{benchmark}.yaml").write_text(yaml.safe_dump(task))
    return names
