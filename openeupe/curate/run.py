"""`openeupe curate`: a heap of images -> a manifest of those worth training on."""

from __future__ import annotations

import importlib.metadata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from openeupe.curate import balance
from openeupe.curate.config import CurateConfig
from openeupe.curate.decide import BALANCE, KEPT, REASONS, UNLIKE, Decisions
from openeupe.curate.duplicates import Pair
from openeupe.curate.embed import Embeddings
from openeupe.curate.hashing import MOST_BITS
from openeupe.curate.heap import Heap
from openeupe.curate.kmeans import import_faiss
from openeupe.curate.machines import Machines, machines
from openeupe.curate.manifest import write_manifest
from openeupe.curate.neighbours import near_vectors, nearest_places
from openeupe.curate.scan import Scanned, readable, scan
from openeupe.data import derive_seed
from openeupe.data.manifest import VERSION
from openeupe.encoders import Encoder, check_side
from openeupe.errors import InputError

_HASH_ALONE, _HASH_BESIDE = 6, 18  # chosen on planted copies: docs/curate.md
_QUERIES = 1024  # seed or evaluation images compared at once


@dataclass
class _Work:
    """What every step needs."""

    folder: Path
    config: CurateConfig
    encoder: Encoder | None
    here: Machines
    progress: Progress

    def scan(self, heap: Heap, name: str) -> Scanned:
        folder = self.folder / f"{name}-scan"
        return scan(heap, folder, self.here, self.config.workers, self.progress)

    def embed(self, heap: Heap, name: str, rows: NDArray[np.int64], scanned: Scanned) -> Embeddings:
        assert self.encoder is not None
        side = self.config.side or self.encoder.resolution
        folder = self.folder / f"{name}-vectors"
        made = Embeddings(folder, heap, rows, scanned.digest, self.encoder, side)
        made.make(self.here, self.config.workers, self.progress)
        return made


def curate(
    paths: Sequence[str | Path],
    out: Path,
    encoder: Encoder | None,
    config: CurateConfig | None = None,
    *,
    against: Sequence[str | Path] = (),
    like: Sequence[str | Path] = (),
    work: Path | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Curate a heap of images: drop what is broken, copied or leaked, and balance the rest.

    What was read and embedded lies in the folder `work`: cut off and called again, only the rest is
    done, to the same manifest. It may be deleted afterwards, or serve other settings. Under
    torchrun all processes call this
    alike, share reading and embedding, and the first one does the rest.

    Args:
        paths: folders of images, and tar shards.
        out: the manifest, a file ending in `.parquet`.
        encoder: sees which images are alike; None: only bytes and perceptual hashes are compared,
            and nothing is balanced.
        against: folders or shards of evaluation images; what shows one of them is dropped.
        like: folders or shards of a seed set; only the images nearest to it stay.
        work: where to keep what was read and embedded.  [`OUT.work`]

    Returns:
        What the manifest says of itself: counts, settings, seeds, sizes.

    Raises:
        InputError: if there are no images, a path is wrong, faiss is missing or nothing would be
            left.
    """
    config = config or CurateConfig()
    bits = config.hash_distance
    if bits is None:
        bits = _HASH_ALONE if encoder is None else _HASH_BESIDE
    _check(out, encoder, config, like)
    heap = Heap(paths)
    evaluation = Heap(against) if against else None
    seeds = Heap(like) if like else None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = work or out.with_suffix(".work")
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"--out {out} cannot be written ({error.strerror}): choose another place"
        ) from None
    with machines() as here, Progress(console=_console(console, here), transient=True) as progress:
        shared = _Work(folder, config, encoder, here, progress)
        scanned = shared.scan(heap, "heap")
        theirs = shared.scan(evaluation, "against") if evaluation else None
        decided = Decisions(scanned, config, bits)
        decided.by_shape()
        _somebody_left(decided, "can be read and is large enough")
        decided.by_bytes(theirs)
        _somebody_left(decided, "is left beside the leaks")
        made = those = wanted = None
        if encoder is not None:
            made = shared.embed(heap, "heap", decided.left, scanned)
            if evaluation and theirs:
                those = shared.embed(evaluation, "against", readable(theirs), theirs)
            if seeds:
                found = shared.scan(seeds, "like")
                wanted = shared.embed(seeds, "like", readable(found), found)
        about: dict[str, Any] = {
            "version": VERSION,
            "openeupe": importlib.metadata.version("openeupe"),
            "roots": [_root(root, out) for root in heap.roots],
            "config": config.model_dump() | {"hash_distance": bits},
            "encoder": made.about if made else None,
            "against": [str(path) for path in against],
            "like": [str(path) for path in like],
        }
        if here.first:  # the others' share is done
            clusters = np.full(len(heap), -1, np.int32)
            weights = np.ones(len(heap), np.float32)
            if made is None:
                decided.by_hash(theirs)
            else:
                if those and theirs:
                    decided.drop_leaks(_leaks(decided, made, those, theirs))
                decided.drop_copies(_pairs(decided, made.only(decided.left)))
                if wanted:
                    left = decided.left
                    near = _retrieve(made.only(left), wanted, config.like_each)
                    decided.reason[np.setdiff1d(left, near)] = UNLIKE
                _somebody_left(decided, "is left to balance")
                tree = _balance(made.only(decided.left), decided, clusters, weights, progress)
                about |= {"clusters": tree.sizes, "parents": [p.tolist() for p in tree.parents]}
            decided.settle()
            copies = np.flatnonzero(decided.of >= 0)
            clusters[copies] = clusters[decided.of[copies]]
            weights[decided.reason != KEPT] = 0
            if made is not None:
                about["balance"] = {
                    "before": _evenness(clusters, np.ones(len(heap)), about["clusters"][0]),
                    "after": _evenness(clusters, weights, about["clusters"][0]),
                }
            reasons = Counter(REASONS[r] for r in decided.reason.tolist())
            about |= {"images": len(heap), "kept": reasons.pop("kept", 0), "dropped": dict(reasons)}
            scans = shared.folder / "heap-scan"
            write_manifest(out, scans, heap, decided, clusters, weights, evaluation, about)
        here.wait()
    return about


def _console(console: Console | None, here: Machines) -> Console:
    return console if console and here.first else Console(quiet=True)


def _check(
    out: Path, encoder: Encoder | None, config: CurateConfig, like: Sequence[str | Path]
) -> None:
    import_faiss()
    if out.suffix != ".parquet":
        raise InputError(f"--out {out}: name a file that ends in .parquet")
    if config.clusters and any(a <= b for a, b in pairwise(config.clusters)):
        raise InputError(f"clusters {config.clusters}: give the finest level first, as in 400,50")
    if encoder is None and (like or config.size or config.clusters):
        raise InputError("--like, --size and --clusters need an encoder: name one with --encoder")
    if encoder is None and (config.hash_distance or 0) > MOST_BITS:
        raise InputError(
            f"--hash-distance {config.hash_distance} finds too much by itself: name an encoder "
            f"that must agree, or at most {MOST_BITS}"
        )
    if encoder is not None and config.side:
        check_side(encoder, config.side)


def _root(root: Path, out: Path) -> str:
    """Relative to the manifest where the images lie beside or below it, so that both can move."""
    here = out.resolve().parent
    return root.relative_to(here).as_posix() if root.is_relative_to(here) else str(root)


def _somebody_left(decided: Decisions, what: str) -> None:
    if not len(decided.left):
        counts = Counter(REASONS[r] for r in decided.reason.tolist())
        told = ", ".join(f"{count} {reason}" for reason, count in counts.most_common())
        raise InputError(f"no image {what} ({told}): check the paths and settings")


def _pairs(decided: Decisions, made: Embeddings) -> Iterator[Pair]:
    """Rows that both the embedding and the hash find near."""
    config = decided.config
    for one, two, cosines in near_vectors(made, config.similarity, config.seed):
        rows, others = made.rows[one], made.rows[two]
        bits = decided.hash_bits(rows, others)
        near = bits <= decided.hash_distance
        columns = (rows, others, bits, cosines)
        yield from zip(*(column[near].tolist() for column in columns), strict=True)


def _leaks(
    decided: Decisions, made: Embeddings, those: Embeddings, theirs: Scanned
) -> Iterator[Pair]:
    """Rows, and evaluation images that both the embedding and the hash find near."""
    for first, queries in those.blocks():
        towards = queries.astype(np.float32).T
        for start, vectors in made.blocks():
            cosines = vectors.astype(np.float32) @ towards
            one, two = np.nonzero(cosines >= decided.config.leak_similarity)
            rows, others = made.rows[start + one], those.rows[first + two]
            bits = decided.hash_bits(rows, others, theirs)
            near = bits <= decided.hash_distance
            columns = (rows, others, bits, cosines[one, two])
            yield from zip(*(column[near].tolist() for column in columns), strict=True)


def _retrieve(made: Embeddings, wanted: Embeddings, each: int) -> NDArray[np.int64]:
    """Rows that are among the `each` nearest of any image of the seed set."""
    near = np.zeros(len(made), bool)
    for _, vectors in wanted.blocks():
        for start in range(0, len(vectors), _QUERIES):
            queries = vectors[start : start + _QUERIES].astype(np.float32)
            places, _ = nearest_places(made, queries, each)
            near[places[places >= 0]] = True
    return made.rows[near]


def _balance(
    pool: Embeddings,
    decided: Decisions,
    clusters: NDArray[np.int32],
    weights: NDArray[np.float32],
    progress: Progress,
) -> balance.Tree:
    """Fill `clusters` and `weights` of the pool's rows; drop those that `size` leaves out."""
    config = decided.config
    wanted = config.clusters or balance.default_clusters(len(pool))
    sizes = [min(size, len(pool)) for size in wanted]
    seed = derive_seed(config.seed, "clusters")
    tree = balance.cluster(pool, sizes, config.resampling, seed, progress)
    kept = np.ones(len(pool), bool)
    if config.size is not None:
        kept = balance.choose(tree, config.size, config.seed)
        decided.reason[pool.rows[~kept]] = BALANCE
    clusters[pool.rows] = tree.leaf
    weights[pool.rows] = balance.weights(tree, kept, config.max_weight)
    return tree


def _evenness(clusters: NDArray[np.int32], amounts: NDArray[Any], count: int) -> dict[str, float]:
    """Of the finest clusters, whose images count by these amounts."""
    known = clusters >= 0
    sums = np.bincount(clusters[known], amounts[known], minlength=count)
    return {
        "gini": round(balance.gini(sums), 4),
        "effective_clusters": round(balance.effective(sums), 1),
    }
