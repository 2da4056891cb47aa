"""How many of the planted copies and leaks `openeupe curate` finds, and how often it is wrong.

    python -m experiments.curation POOL --against TEST... --work FOLDER [--encoder NAME]

POOL is what `experiments.planted_pool` made. Photos are split in two halves by name: thresholds are
chosen on the first and judged on the second. A planted copy is found if it and its original are
copies of the same image. A dropped copy is right if it was planted as a copy of what it is said
to be a copy of; what the data sets themselves hold twice counts as wrong, and is listed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch

import openeupe
from openeupe.curation import CurateConfig, curate
from openeupe.encoders import Encoder

ALONE = [0, 2, 4, 6, 8, 10, 12]  # bits
BITS = [10, 14, 18, 22, 64]
AGREEMENTS = [0.8, 0.85, 0.9, 0.92, 0.95]
COSINES = [0.8, 0.85, 0.9, 0.95]


def half(name: str) -> int:
    """0 to choose on, 1 to report on."""
    return hashlib.blake2b(name.encode(), digest_size=1).digest()[0] % 2


class Judged:
    """Counts by half and kind."""

    def __init__(self, manifest: Path, planted: dict[str, dict[str, str]]) -> None:
        rows = pq.read_table(manifest).to_pylist()
        by_name = {row["path"]: row for row in rows}
        family = {n: (p["of"] if p["of"] in planted else n) for n, p in planted.items()}

        def root(name: str) -> str:
            of = by_name[name]["of"]
            return name if of is None else rows[of]["path"]

        self.found: dict[tuple[int, str], list[bool]] = defaultdict(list)
        self.right: dict[tuple[int, str], list[bool]] = defaultdict(list)
        self.wrong: list[tuple[str, str, str]] = []
        for name, about in planted.items():
            row, kind = by_name[name], about["kind"]
            part = half(family[name])
            if kind.startswith("leak"):
                self.found[part, kind].append(row["reason"] == "leak")
            elif about["of"] in planted and "leak" not in (
                row["reason"],
                by_name[about["of"]]["reason"],
            ):
                same = root(name) == root(about["of"]) and row["reason"] in ("copy", "near copy")
                other = by_name[about["of"]]["reason"] in ("copy", "near copy")
                self.found[part, kind].append(same or (other and root(about["of"]) == root(name)))
            if row["reason"] in ("copy", "near copy"):
                good = family[root(name)] == family[name]
                self.right[part, row["reason"]].append(good)
                if not good:
                    pair = [planted[family[n]]["of"] for n in (name, root(name))]
                    how = f"{row['bits']} bits, cosine {row['cosine'] or float('nan'):.3f}"
                    self.wrong.append((*sorted(pair), how))
            elif kind in ("broken", "tiny", "narrow"):
                names = {"broken": "unreadable", "tiny": "small", "narrow": "narrow"}
                self.found[part, kind].append(row["reason"] == names[kind])
        self.leaks = sum(row["reason"] == "leak" for row in rows)

    def near(self, part: int) -> tuple[float, float, float]:
        """Recall, precision and F1 of near copies."""
        found = [f for (p, kind), all_ in self.found.items() if p == part for f in all_
                 if kind != "exact" and not kind.startswith("leak")
                 and kind not in ("broken", "tiny", "narrow")]  # fmt: skip
        right = self.right[part, "near copy"]
        recall = sum(found) / len(found)
        precision = sum(right) / max(len(right), 1)
        return recall, precision, 2 * recall * precision / max(recall + precision, 1e-9)


def trials(judge: Callable[..., Judged], encoder: Encoder) -> dict[str, dict[str, Judged]]:
    """Each way to find copies, at its settings.

    Args:
        judge: curates with an encoder (or none) and settings.
        encoder: of the ways that compare embeddings.
    """
    return {
        "hash alone": {f"{b} bits": judge(None, hash_distance=b) for b in ALONE},
        "hash, looked at again": {
            f"{b} bits, agreement {a}": judge(
                None, hash_distance=b, agreement=a, leak_agreement=0.8
            )
            for b in ALONE[2:]
            for a in AGREEMENTS
        },
        "embedding alone": {
            f"cosine {c}": judge(encoder, hash_distance=64, similarity=c) for c in COSINES
        },
        "hash and embedding": {
            f"{b} bits, cosine {c}": judge(encoder, hash_distance=b, similarity=c)
            for b in BITS[:-1]
            for c in COSINES
        },
        "hash and embedding, looked at again": {
            f"{b} bits, cosine {c}, agreement {a}": judge(
                encoder, hash_distance=b, similarity=c, agreement=a, leak_agreement=0.8
            )
            for b in BITS[2:-1]
            for c in COSINES[:2]
            for a in AGREEMENTS
        },
    }


def show(tried: dict[str, dict[str, Judged]]) -> None:
    """Print recall and precision of every setting, and what the best of each way found."""
    for name, settings in tried.items():
        best = max(settings, key=lambda key: settings[key].near(0)[2])
        for key, one in settings.items():
            first, second = one.near(0), one.near(1)
            mark = "  <- chosen" if key == best else ""
            print(f"{name}, {key}: choosing half recall {first[0]:.3f} precision {first[1]:.3f}; "
                  f"other half {second[0]:.3f} {second[1]:.3f}{mark}")  # fmt: skip
        one = settings[best]
        for (part, kind), found in sorted(one.found.items(), key=lambda item: item[0][1]):
            if part == 1 or kind.startswith("leak"):
                print(f"    {kind}: {sum(found)} of {len(found)} (half {part})")
        copies = one.right[1, "copy"]
        print(f"    exact copies right: {sum(copies)} of {len(copies)}; leaks in all {one.leaks}")
        for first_, second_, how in sorted(set(one.wrong)):
            print(f"    not planted: {first_} {second_} ({how})")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("image_pool", type=Path)
    parser.add_argument("--against", type=Path, nargs="+", required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--encoder", default="efficientnet_lite0")
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(1)
    planted = json.loads(given.image_pool.with_suffix(".json").read_text())
    encoder = openeupe.load(given.encoder)

    def judge(eyes: Encoder | None, **settings: Any) -> Judged:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "out.parquet"
            settings = {"agreement": 0, "leak_agreement": 0, **settings}
            config = CurateConfig(workers=given.workers, work=str(given.work), **settings)
            if eyes is not None:
                config = config.model_copy(update={"clusters": [8], "resampling": 0})
            curate([given.image_pool], out, eyes, config, against=given.against)
            return Judged(out, planted)

    show(trials(judge, encoder))


if __name__ == "__main__":
    main()
