"""Memory and time that deciding without an encoder takes, on synthetic rows.

    python -m speed.curation_memory ROWS

10 % of the rows are exact copies and 10 % have a hash that differs in one bit from another's;
images are not compared. Told: memory above that of the loaded libraries, at the end of reading and
at the peak. Names of files come to that.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time

import numpy as np

from openeupe.curation.config import CurateConfig
from openeupe.curation.decide import REASONS, Decisions
from openeupe.curation.libraries import import_faiss
from openeupe.curation.scan import Scanned


def synthetic(rows: int) -> Scanned:
    """Of images that are all 640 x 480."""
    draw = np.random.default_rng(0)
    copies = rows // 10
    hashes = draw.integers(1, 2**64, rows, dtype=np.uint64)
    turned = np.uint64(1) << draw.integers(0, 64, copies).astype(np.uint64)
    hashes[-copies:] = hashes[:copies] ^ turned
    digests = draw.integers(0, 2**64, (rows, 2), dtype=np.uint64)
    digests[-2 * copies : -copies] = digests[:copies]
    return Scanned(
        np.full(rows, 640, np.int32),
        np.full(rows, 480, np.int32),
        draw.integers(1000, 99_999, rows),
        digests,
        hashes,
        *(draw.integers(1, 2**64, rows, dtype=np.uint64) for _ in range(3)),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", type=int)
    parser.add_argument("--bits", type=int, default=10)
    given = parser.parse_args()
    import_faiss()
    before = _peak_mb()
    scanned = synthetic(given.rows)
    read, start = _peak_mb(), time.perf_counter()
    decided = Decisions(scanned, CurateConfig(agreement=0), given.bits, given.bits)
    decided.by_shape()
    decided.by_bytes(None)
    decided.copies_by_hash(None)
    decided.settle()
    seconds, peak = time.perf_counter() - start, _peak_mb()
    counts = np.bincount(decided.reason, minlength=len(REASONS))
    dropped = {REASONS[i]: int(n) for i, n in enumerate(counts) if n}
    print(
        f"{given.rows} rows: {read - before:.1f} MB read, {peak - before:.1f} MB at the peak "
        f"({1e6 * (peak - before) / given.rows:.0f} bytes a row), {seconds:.1f} s; {dropped}"
    )


def _peak_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 1e3)


if __name__ == "__main__":
    main()
