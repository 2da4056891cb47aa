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
from openeupe.curate.scan import Scanned, scan
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
    with machines() as here, Progress(console=console or Console(quiet=True), transient=True) as p:
        does = _Work(folder, config, encoder, here, p)
        scanned = does.scan(heap, "heap")
        theirs = does.scan(evaluation, "against") if evaluation else None
        decided = Decisions(scanned, config, bits)
        decided.by_shape()
        _somebody_left(decided, "can be read and is large enough")
        decided.by_bytes(theirs)
        if encoder is None:
            decided.by_hash(theirs)
        clusters = np.full(len(heap), -1, np.int32)
        weights = np.ones(len(heap), np.float32)
        about: dict[str, Any] = {
            "version": VERSION,
            "openeupe": importlib.metadata.version("openeupe"),
            "roots": [_root(root, out) for root in heap.roots],
            "config": config.model_dump() | {"hash_distance": bits},
            "encoder": None,
            "against": [str(path) for path in against],
            "like": [str(path) for path in like],
        }
        if encoder is not None:
            rows = decided.left
            _somebody_left(decided, "is left beside the leaks")
            made = does.embed(heap, "heap", rows, scanned)
            about["encoder"] = {
                "name": encoder.name,
                "identity": made.identity,
                "side": made.side,
            }
            if evaluation and theirs:
                readable = np.flatnonzero(theirs.width > 0)
                those = does.embed(evaluation, "against", readable, theirs)
                decided.drop_leaks(_leaks(decided, made, those, theirs))
            decided.drop_copies(_pairs(decided, made.only(decided.left)))
            if seeds:
                found = does.scan(seeds, "like")
                wanted = does.embed(seeds, "like", np.flatnonzero(found.width > 0), found)
                left = decided.left
                near = _retrieve(made.only(left), wanted, config.like_each)
                decided.reason[np.setdiff1d(left, near)] = UNLIKE
            _somebody_left(decided, "is left to balance")
            about |= _balance(does, made, decided, clusters, weights)
        decided.settle()
        copies = np.flatnonzero(decided.of >= 0)
        clusters[copies] = clusters[decided.of[copies]]
        if encoder is not None:
            known, count = clusters >= 0, about["clusters"][0]
            drawn = np.where(decided.reason == KEPT, weights, 0)
            about["balance"] = {
                "before": _evenness(np.bincount(clusters[known], minlength=count)),
                "after": _evenness(np.bincount(clusters[known], drawn[known], minlength=count)),
            }
        reasons = Counter(REASONS[r] for r in decided.reason.tolist())
        about |= {"images": len(heap), "kept": reasons.pop("kept", 0), "dropped": dict(reasons)}
        if here.first:
            scans = does.folder / "heap-scan"
            write_manifest(out, scans, heap, decided, clusters, weights, evaluation, about)
        here.wait()
    return about


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
            one, two = np.nonzero(cosines >= decided.config.similarity)
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
    work: _Work,
    made: Embeddings,
    decided: Decisions,
    clusters: NDArray[np.int32],
    weights: NDArray[np.float32],
) -> dict[str, Any]:
    """Fill `clusters` and `weights` of the rows that are left, drop what --size leaves out."""
    config = work.config
    pool = made.only(decided.left)
    wanted = config.clusters or balance.default_clusters(len(pool))
    sizes = [min(size, len(pool)) for size in wanted]
    tree = balance.cluster(
        pool, sizes, config.resampling, derive_seed(config.seed, "clusters"), work.progress
    )
    kept = np.ones(len(pool), bool)
    if config.size is not None:
        kept = balance.choose(tree, config.size, config.seed)
        decided.reason[pool.rows[~kept]] = BALANCE
    clusters[pool.rows] = tree.leaf
    weights[pool.rows] = balance.weights(tree, kept, config.max_weight)
    return {"clusters": tree.sizes, "parents": [level.tolist() for level in tree.parents]}


def _evenness(amounts: NDArray[Any]) -> dict[str, float]:
    """Of the finest clusters."""
    return {
        "gini": round(balance.gini(amounts), 4),
        "effective_clusters": round(balance.effective(amounts), 1),
    }
