"""Curation: an image pool -> a manifest of the images worth training on."""

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
from openeupe.curation.image_pool import ImagePool
from openeupe.curation.libraries import import_faiss, import_opencv
from openeupe.curation.manifest_writer import write_manifest
from openeupe.curation.scan import Scanned, readable, scan
from openeupe.data.manifest import VERSION
from openeupe.distributed import Processes, processes
from openeupe.encoders import Encoder, check_resolution
from openeupe.errors import InputError
from openeupe.known_warnings import known_warnings_ignored
from openeupe.locks import locked
from openeupe.progress import LOGGED, SILENT, Progress
from openeupe.version import package_version

_PATIENCE = timedelta(days=7)  # until the slowest process has finished its parts
# Bits by which copies may differ, chosen on planted ones: docs/curate.md.
_HASH_ALONE, _HASH_AND_AGREEMENT, _HASH_AND_ENCODER = 6, 10, 18
_NEED_ENCODER = (
    *("size", "clusters", "similarity", "leak_similarity", "resolution", "like_each", "balance"),
    *("near", "resampling", "max_weight", "seed"),
)


@dataclass
class _Images:
    """Images that were scanned. unreadable: names of those that cannot be read."""

    image_pool: ImagePool
    scanned: Scanned
    unreadable: list[str]


@dataclass
class _Work:
    """Encoder, settings and folders of all steps."""

    folder: Path
    config: CurateConfig
    encoder: Encoder | None
    here: Processes
    progress: Progress

    def scan(self, image_pool: ImagePool, name: str) -> _Images:
        folder = self.folder / f"{name}-scan"
        scanned = scan(image_pool, folder, self.here, self.config.workers, self.progress)
        rows = np.setdiff1d(np.arange(len(scanned)), readable(scanned))
        return _Images(image_pool, scanned, [image_pool.name(int(row)) for row in rows])

    def agreement(self, least: float, ours: _Images, other: _Images | None) -> Agreement | None:
        """Comparison of two sets of images; None without agreement."""
        if not least or other is None:
            return None
        one, two = ((images.image_pool, images.scanned.digest) for images in (ours, other))
        mirrored, workers = self.config.mirrored, self.config.workers
        return Agreement(one, two, self.folder / "agreement", mirrored, workers)

    def embed(self, images: _Images, name: str, rows: NDArray[np.int64]) -> Embeddings:
        assert self.encoder is not None
        resolution = self.config.resolution or self.encoder.resolution
        folder = self.folder / f"{name}-vectors"
        made = Embeddings(
            folder, images.image_pool, rows, images.scanned.digest, self.encoder, resolution
        )
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
    progress: Progress = LOGGED,
) -> dict[str, Any]:
    """Curate an image pool: drop what is broken, copied or leaked, and balance the rest.

    Scans and embeddings are cached in a folder (`config.work`), so that an interrupted call
    resumes. It can be deleted afterwards, or used with other settings. Under torchrun all
    processes call this and share reading and embedding; the first one does the rest.

    Args:
        paths: folders of images, and tar shards.
        out: the manifest, a file ending in `.parquet`.
        encoder: compares images; None: only bytes and perceptual hashes are compared, and
            nothing is balanced.
        against: folders or shards of evaluation images; images that duplicate these are removed.
        like: folders or shards of a seed set; only the images nearest to it stay.

    Returns:
        Metadata of the manifest: counts, settings, seeds, sizes; empty in all processes but
        the first.

    Raises:
        InputError: in one line, for a wrong path or setting, or if no image would be left.
    """
    config = config or CurateConfig()
    _check(paths, out, encoder, config, like, against)
    image_pool = ImagePool(paths)
    others = [ImagePool(some) if some else None for some in (against, like)]
    folder = _folder(out, config.work)
    about: dict[str, Any] = {}
    with (
        processes(torch.device("cpu"), _PATIENCE) as here,
        locked(folder, "the work folder") if here.first else nullcontext(),
    ):
        work = _Work(folder, config, encoder, here, progress if here.first else SILENT)
        ours = work.scan(image_pool, "pool")
        leaks = _some_readable(work, others[0], "against")
        seeds = _some_readable(work, others[1], "like")
        decided = _decided_alone(work, ours, leaks)
        if encoder is None:
            shares, seen = _by_hash(work, decided, ours, leaks), None
        else:
            shares, seen = _by_vectors(work, decided, ours, leaks, seeds)
        if here.first:
            decided.settle()
            shares.settle(decided)
            about = _about(out, decided, ours, seen, config)
            about |= _others("against", against, leaks) | _others("like", like, seeds)
            about |= _counts(decided) | shares.about()
            found = folder / "pool-scan"
            write_manifest(out, found, image_pool, decided, shares, others[0], about)
        here.wait()
    return about


def _decided_alone(work: _Work, ours: _Images, leaks: _Images | None) -> Decisions:
    """Decide by shape and bytes."""
    config = work.config
    bits = _bits(config, work.encoder)
    alone = bits if work.encoder is None else min(bits, _bits_alone(config))
    decided = Decisions(ours.scanned, config, bits, alone)
    decided.by_shape()
    _somebody_left(decided, "can be read and is large enough")
    decided.by_bytes(leaks.scanned if leaks else None)
    _somebody_left(decided, "is left, every image is a leaked evaluation image")
    return decided


def _by_hash(work: _Work, decided: Decisions, ours: _Images, leaks: _Images | None) -> Shares:
    """Decide on leaks and copies without an encoder; sampling is uniform."""
    if work.here.first:
        if leaks:
            agree = work.agreement(work.config.leak_agreement, ours, leaks)
            decided.leaks_by_hash(leaks.scanned, agree)
        decided.copies_by_hash(work.agreement(work.config.agreement, ours, ours))
    return Shares.equal(len(ours.image_pool))


def _by_vectors(
    work: _Work,
    decided: Decisions,
    ours: _Images,
    leaks: _Images | None,
    seeds: _Images | None,
) -> tuple[Shares, Embeddings]:
    """Decide on leaks, copies and the seed set. Then balance the remaining images."""
    made = work.embed(ours, "pool", decided.left)
    those = work.embed(leaks, "against", readable(leaks.scanned)) if leaks else None
    wanted = work.embed(seeds, "like", readable(seeds.scanned)) if seeds else None
    if not work.here.first:  # the others' share is done
        return Shares.equal(len(ours.image_pool)), made
    if leaks and those:
        agree = work.agreement(work.config.leak_agreement, ours, leaks)
        by_vectors.drop_leaks(decided, made, leaks.scanned, those, agree)
    by_vectors.drop_copies(decided, made, work.agreement(work.config.agreement, ours, ours))
    if wanted:
        by_vectors.drop_unlike(decided, made, wanted)
    _somebody_left(decided, "is left to balance")
    return by_vectors.balanced(decided, made, work.progress), made


def _about(
    out: Path, decided: Decisions, ours: _Images, seen: Embeddings | None, config: CurateConfig
) -> dict[str, Any]:
    """Settings in the manifest, without paths of the work folder and shards."""
    return {
        "version": VERSION,
        "openeupe": package_version(),
        "roots": [_root(root, out) for root in ours.image_pool.roots],
        "config": config.model_dump(exclude={"work", "shards"})
        | {"hash_distance": decided.hash_distance},
        "encoder": None if seen is None else seen.about,
    }


def _others(
    option: str, given: Sequence[str | Path], images: _Images | None
) -> dict[str, list[str]]:
    """What a manifest contains about the images of an option."""
    return {
        option: [str(path) for path in given],
        f"unreadable_{option}": images.unreadable if images else [],
    }


def _counts(decided: Decisions) -> dict[str, Any]:
    reasons = Counter(REASONS[r] for r in decided.reason.tolist())
    images = reasons.total()
    return {"images": images, "kept": reasons.pop("kept", 0), "dropped": dict(reasons)}


def _bits(config: CurateConfig, encoder: Encoder | None) -> int:
    if config.hash_distance is not None:
        return config.hash_distance
    if encoder is not None:
        return _HASH_AND_ENCODER
    return _bits_alone(config)


def _bits_alone(config: CurateConfig) -> int:
    """Bits by which hashes of copies may differ without an encoder's vote."""
    return _HASH_AND_AGREEMENT if config.agreement else _HASH_ALONE


def _folder(out: Path, work: str | None) -> Path:
    """The work folder; also creates the manifest's folder."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(work) if work else out.with_suffix(".work")
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"out {out} cannot be written ({error.strerror}): choose another place"
        ) from None
    return folder


def _check(
    paths: Sequence[str | Path],
    out: Path,
    encoder: Encoder | None,
    config: CurateConfig,
    like: Sequence[str | Path],
    against: Sequence[str | Path],
) -> None:
    import_faiss()
    import_opencv()
    if not paths:
        raise InputError("there is nothing to curate: name a folder of images, or tar shards")
    if out.suffix != ".parquet":
        raise InputError(f"out {out}: name a file that ends in .parquet")
    if config.clusters and any(a <= b for a, b in pairwise(config.clusters)):
        raise InputError(f"clusters {config.clusters}: give the finest level first, as in 400,50")
    _check_used(config, encoder is not None, bool(like), bool(against))
    if encoder is None and (config.hash_distance or 0) > MOST_BITS:
        raise InputError(
            f"hash_distance {config.hash_distance} finds too many copies without an encoder: "
            f"name an encoder, or at most {MOST_BITS}"
        )
    if encoder is not None and config.resolution:
        check_resolution(encoder, config.resolution)


def _check_used(config: CurateConfig, encoder: bool, like: bool, against: bool) -> None:
    """Raise `InputError` for a setting that would change nothing."""
    needs = {
        "an encoder": (encoder, _NEED_ENCODER),
        "`like`": (like, ("like_each",)),
        "`against`": (against, ("leak_similarity", "leak_agreement")),
        "balance=neighbours": (config.balance == "neighbours", ("near",)),
    }
    if like and not encoder:
        raise InputError("`like` needs an encoder: name one (`encoder`)")
    for option, (given, names) in needs.items():
        for name in names:
            if not given and getattr(config, name) != CurateConfig.model_fields[name].default:
                raise InputError(
                    f"{name} has no effect without {option}: leave it out, or add {option}"
                )


def _root(root: Path, out: Path) -> str:
    """Path relative to the manifest if the images are next to it. So both can be moved."""
    here = out.resolve().parent
    return root.relative_to(here).as_posix() if root.is_relative_to(here) else str(root)


def _some_readable(work: _Work, image_pool: ImagePool | None, option: str) -> _Images | None:
    """The images of an option, of which at least one can be read; None without that option."""
    images = None if image_pool is None else work.scan(image_pool, option)
    if images and len(images.unreadable) == len(images.scanned):
        raise InputError(
            f"{option} {', '.join(map(str, images.image_pool.roots))}: none of its "
            f"{len(images.scanned)} images can be read: check the files"
        )
    return images


def _somebody_left(decided: Decisions, what: str) -> None:
    if not len(decided.left):
        counts = Counter(REASONS[r] for r in decided.reason.tolist())
        counted = ", ".join(f"{count} {reason}" for reason, count in counts.most_common())
        raise InputError(f"no image {what} ({counted}): check the paths and settings")
