"""The control of a curated set: as many images, drawn at random from the same image
pool.

    python -m experiments.random_manifest CURATED.parquet OUT.parquet [--size N] [--seed 0]

Drawn among all readable images that are no leaks, so with the copies and the imbalance of the
pool; all weights are 1. OUT must lie next to CURATED, whose roots it takes over.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from openeupe.data.manifest import METADATA


def draw(curated: Path, out: Path, size: int | None, seed: int) -> int:
    """Write the manifest; returns how many images it keeps."""
    table = pq.read_table(curated)
    about = json.loads(table.schema.metadata[METADATA])
    reasons = np.array(table["reason"].cast(pa.string()).to_pylist())
    usable = np.flatnonzero(~np.isin(reasons, ["unreadable", "leak"]))
    count = min(size or about["kept"], len(usable))
    chosen = np.random.default_rng(seed).choice(usable, count, replace=False)
    weights = np.zeros(len(table), np.float32)
    weights[chosen] = 1
    about |= {"kept": count, "drawn_by_chance": seed}
    place = table.schema.get_field_index("weight")
    table = table.set_column(place, "weight", pa.array(weights))
    pq.write_table(table.replace_schema_metadata({METADATA: json.dumps(about)}), out)
    return count


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("curated", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--size", type=int)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    print(f"{draw(given.curated, given.out, given.size, given.seed)} images in {given.out}")


if __name__ == "__main__":
    main()
