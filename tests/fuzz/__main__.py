"""`python -m tests.fuzz`: many malformed inputs, and a table of how they ended."""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Iterator
from itertools import starmap

from .kinds import KINDS
from .trying import OUTCOMES, WRONG, Tried, attempt, attempt_one, prepare

_SHOWN = 8  # of each kind
_A_PROCESS = 4000  # inputs, before it is replaced: nothing that grows may add up


def _tried(jobs: list[tuple[str, int]], processes: int) -> Iterator[Tried]:
    if processes == 1:
        prepare()
        yield from starmap(attempt, jobs)
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes, prepare, maxtasksperchild=_A_PROCESS) as pool:
        yield from pool.imap_unordered(attempt_one, jobs, chunksize=4)


def main() -> None:
    """Try, and print what was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=100, help="inputs of each kind")
    parser.add_argument("--seed", type=int, default=0, help="number of the first one")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    chosen = parser.parse_args()
    started = time.perf_counter()
    seeds = range(chosen.seed, chosen.seed + chosen.count)
    jobs = [(kind, seed) for kind in chosen.kinds for seed in seeds]
    counts: dict[str, Counter[str]] = {kind: Counter() for kind in chosen.kinds}
    slowest, largest = dict.fromkeys(chosen.kinds, 0.0), dict.fromkeys(chosen.kinds, 0.0)
    for one in _tried(jobs, chosen.processes):
        counts[one.kind][one.outcome] += 1
        slowest[one.kind] = max(slowest[one.kind], one.seconds)
        largest[one.kind] = max(largest[one.kind], one.gigabytes)
        if one.outcome in WRONG and sum(counts[one.kind][w] for w in WRONG) <= _SHOWN:
            print(f"--- {one.kind} {one.seed}: {one.outcome}\n{one.told}", flush=True)
    print(f"\n{'kind':<14}" + "".join(f"{o:>11}" for o in OUTCOMES) + f"{'max s':>8}{'max GB':>8}")
    for kind, found in counts.items():
        numbers = "".join(f"{found[outcome]:>11}" for outcome in OUTCOMES)
        print(f"{kind:<14}{numbers}{slowest[kind]:>8.1f}{largest[kind]:>8.2f}")
    total = sum(counts.values(), Counter[str]())
    wrong = sum(total[outcome] for outcome in WRONG)
    seconds = time.perf_counter() - started
    print(f"{'all':<14}" + "".join(f"{total[outcome]:>11}" for outcome in OUTCOMES))
    print(f"{len(jobs)} inputs, {wrong} wrong, {seconds:.0f} s, {len(jobs) / seconds:.1f} a second")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
