"""`openeupe curate`: a heap of images -> a manifest of those worth training on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from openeupe.curation import by_vectors
from openeupe.curation.agreement import Agreement
from openeupe.curation.by_vectors import Shares
from openeupe.curation.config import CurateConfig
from openeupe.curation.decide import REASONS, Decisions
from openeupe.curation.embed import Embeddings
from openeupe.curation.hashing import MOST_BITS
from openeupe.curation.heap import Heap
from openeupe.curation.libraries import import_faiss, import_opencv
from openeupe.curation.manifest_writer import write_manifest
from openeupe.curation.scan import Scanned, readable, scan
from openeupe.data.manifest import VERSION
from openeupe.distributed import Processes, processes
from openeupe.encoders import Encoder, check_side
from openeupe.errors import InputError
from openeupe.known_warnings import known_warnings_ignored
from openeupe.locks import locked
from openeupe.progress import LOGGED, SILENT, Progress
from openeupe.version import package_version

_PATIENCE = timedelta(days=7)  # until the slowest process has finished its parts
# Bits by which copies may differ, chosen on planted ones: docs/curate.md.
_HASH_ALONE, _HASH_AND_AGREEMENT, _HASH_AND_ENCODER = 6, 10, 18
_NEED_ENCODER = (
    *("size", "clusters", "similarity", "leak_similarity", "side", "like_each", "balance"),
    *("near", "resampling", "max_weight", "seed"),
)


@dataclass
class _Work:
    """What every step needs."""

    folder: Path
    config: CurateConfig
    encoder: Encoder | None
    here: Processes
    progress: Progress

    def scan(self, heap: Heap, name: str) -> Scanned:
        folder = self.folder / f"{name}-scan"
        return scan(heap, folder, self.here, self.config.workers, self.progress)

    def agreement(
        self, least: float, heap: Heap, scanned: Scanned, other: Heap | None, its: Scanned | None
    ) -> Agreement | None:
        """Compares the heap with the other; None where no agreement is asked for."""
        if not least or other is None or its is None:
            return None
        ours, theirs = (heap, scanned.digest), (other, its.digest)
        mirrored, workers = self.config.mirrored, self.config.workers
        return Agreement(ours, theirs, self.folder / "agreement", mirrored, workers)

    def embed(self, heap: Heap, name: str, rows: NDArray[np.int64], scanned: Scanned) -> Embeddings:
        assert self.encoder is not None
        side = self.config.side or self.encoder.resolution
        folder = self.folder / f"{name}-vectors"
        made = Embeddings(folder, heap, rows, scanned.digest, self.encoder, side)
        made.make(self.here, self.config.workers, self.progress)
        return made


@known_warnings_ignored()
def curate(
    paths: Sequence[str | Path],
    out: Path,
    encoder: Encoder | None,
    config: CurateConfig | None = None,
    *,
    against: Sequence[str | Path] = (),
    like: Sequence[str | Path] = (),
    work: Path | None = None,
    progress: Progress = LOGGED,
) -> dict[str, Any]:
    """Curate a heap of images: drop what is broken, copied or leaked, and balance the rest.

    What was read and embedded lies in the folder `work`: cut off and called again, only the rest is
    done, to the same manifest. It may be deleted afterwards, or serve other settings. Under
    torchrun all processes call this alike, share reading and embedding, and the first one does
    the rest.

    Args:
        paths: folders of images, and tar shards.
        out: the manifest, a file ending in `.parquet`.
        encoder: sees which images are alike; None: only bytes and perceptual hashes are compared,
            and nothing is balanced.
        against: folders or shards of evaluation images; what shows one of them is dropped.
        like: folders or shards of a seed set; only the images nearest to it stay.
        work: where to keep what was read and embedded.  [`OUT.work`]

    Returns:
        What the manifest says of itself: counts, settings, seeds, sizes; empty in all processes
        but the first.

    Raises:
        InputError: if there are no images, a path is wrong, faiss is missing or nothing would be
            left.
    """
    config = config or CurateConfig()
    _check(out, encoder, config, like, against)
    heap = Heap(paths)
    evaluation = Heap(against) if against else None
    seeds = Heap(like) if like else None
    folder = _folder(out, work)
    with (
        processes(torch.device("cpu"), _PATIENCE) as here,
        locked(folder, "the work folder") if here.first else nullcontext(),
    ):
        shared = _Work(folder, config, encoder, here, progress if here.first else SILENT)
        scanned = shared.scan(heap, "heap")
        theirs = shared.scan(evaluation, "against") if evaluation else None
        unreadable = _unreadable(evaluation, theirs, "--against", against)
        unreadable_like: list[str] = []
        bits = _bits(config, encoder)
        alone = bits if encoder is None else min(bits, _bits_alone(config))
        decided = Decisions(scanned, config, bits, alone)
        decided.by_shape()
        _somebody_left(decided, "can be read and is large enough")
        decided.by_bytes(theirs)
        _somebody_left(decided, "is left beside the leaks")
        agree = shared.agreement(config.agreement, heap, scanned, heap, scanned)
        leak_agree = shared.agreement(config.leak_agreement, heap, scanned, evaluation, theirs)
        if encoder is None:
            if here.first:
                if theirs:
                    decided.leaks_by_hash(theirs, leak_agree)
                decided.copies_by_hash(agree)
            shares = Shares.alike(len(heap))
        else:
            made = shared.embed(heap, "heap", decided.left, scanned)
            those = wanted = None
            if evaluation and theirs:
                those = shared.embed(evaluation, "against", readable(theirs), theirs)
            if seeds:
                found = shared.scan(seeds, "like")
                unreadable_like = _unreadable(seeds, found, "--like", like)
                wanted = shared.embed(seeds, "like", readable(found), found)
            if here.first:  # the others' share is done
                if theirs and those:
                    by_vectors.drop_leaks(decided, made, theirs, those, leak_agree)
                by_vectors.drop_copies(decided, made, agree)
                if wanted:
                    by_vectors.drop_unlike(decided, made, wanted)
                _somebody_left(decided, "is left to balance")
                shares = by_vectors.balanced(decided, made, progress)
        about: dict[str, Any] = {}
        if here.first:
            decided.settle()
            shares.settle(decided)
            reasons = Counter(REASONS[r] for r in decided.reason.tolist())
            about = {
                "version": VERSION,
                "openeupe": package_version(),
                "roots": [_root(root, out) for root in heap.roots],
                "config": config.model_dump() | {"hash_distance": decided.hash_distance},
                "encoder": None if encoder is None else made.about,
                "against": [str(path) for path in against],
                "unreadable_against": unreadable,
                "like": [str(path) for path in like],
                "unreadable_like": unreadable_like,
                "images": len(heap),
                "kept": reasons.pop("kept", 0),
                "dropped": dict(reasons),
            } | shares.about()
            write_manifest(out, folder / "heap-scan", heap, decided, shares, evaluation, about)
        here.wait()
    return about


def _bits(config: CurateConfig, encoder: Encoder | None) -> int:
    if config.hash_distance is not None:
        return config.hash_distance
    if encoder is not None:
        return _HASH_AND_ENCODER
    return _bits_alone(config)


def _bits_alone(config: CurateConfig) -> int:
    """By which copies may differ whatever an encoder sees in them."""
    return _HASH_AND_AGREEMENT if config.agreement else _HASH_ALONE


def _folder(out: Path, work: Path | None) -> Path:
    """Where to keep what was read and embedded; and the manifest's folder, made."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = work or out.with_suffix(".work")
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"--out {out} cannot be written ({error.strerror}): choose another place"
        ) from None
    return folder


def _check(
    out: Path,
    encoder: Encoder | None,
    config: CurateConfig,
    like: Sequence[str | Path],
    against: Sequence[str | Path],
) -> None:
    import_faiss()
    import_opencv()
    if out.suffix != ".parquet":
        raise InputError(f"--out {out}: name a file that ends in .parquet")
    if config.clusters and any(a <= b for a, b in pairwise(config.clusters)):
        raise InputError(f"clusters {config.clusters}: give the finest level first, as in 400,50")
    _check_used(config, encoder is not None, bool(like), bool(against))
    if encoder is None and (config.hash_distance or 0) > MOST_BITS:
        raise InputError(
            f"--hash-distance {config.hash_distance} finds too much by itself: name an encoder "
            f"that must agree, or at most {MOST_BITS}"
        )
    if encoder is not None and config.side:
        check_side(encoder, config.side)


def _check_used(config: CurateConfig, encoder: bool, like: bool, against: bool) -> None:
    """Raise `InputError` for a setting that would change nothing."""
    needs = {
        "--encoder": (encoder, _NEED_ENCODER),
        "--like": (like, ("like_each",)),
        "--against": (against, ("leak_similarity", "leak_agreement")),
        "--balance neighbours": (config.balance == "neighbours", ("near",)),
    }
    if like and not encoder:
        raise InputError("--like needs an encoder: name one with --encoder")
    for option, (given, names) in needs.items():
        for name in names:
            if not given and getattr(config, name) != CurateConfig.model_fields[name].default:
                raise InputError(
                    f"--{name.replace('_', '-')} has no effect without {option}: leave it out, or "
                    f"add {option}"
                )


def _root(root: Path, out: Path) -> str:
    """Relative to the manifest where the images lie beside or below it, so that both can move."""
    here = out.resolve().parent
    return root.relative_to(here).as_posix() if root.is_relative_to(here) else str(root)


def _unreadable(
    images: Heap | None, scanned: Scanned | None, option: str, given: Sequence[str | Path]
) -> list[str]:
    """Names of the images of an option that cannot be read; none at all is an error."""
    if images is None or scanned is None:
        return []
    rows = np.setdiff1d(np.arange(len(scanned)), readable(scanned))
    if len(rows) == len(scanned):
        raise InputError(
            f"{option} {', '.join(map(str, given))}: none of its {len(rows)} images can be read: "
            "check the files"
        )
    return [images.name(int(row)) for row in rows]


def _somebody_left(decided: Decisions, what: str) -> None:
    if not len(decided.left):
        counts = Counter(REASONS[r] for r in decided.reason.tolist())
        told = ", ".join(f"{count} {reason}" for reason, count in counts.most_common())
        raise InputError(f"no image {what} ({told}): check the paths and settings")
