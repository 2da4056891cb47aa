"""Compute cached teacher outputs: announced, resumed after a kill, and measured."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import Dataset

from openeupe.data import RepeatedViews
from openeupe.data.workers import loaded
from openeupe.distillation.stage import Stage, Views
from openeupe.distillation.teacher_cache import (
    DIGEST,
    SETTINGS,
    CachedTokens,
    extend,
    is_whole,
    pack,
    restore,
    shard_path,
    shards_there,
    teachers_in,
    view_bytes,
)
from openeupe.distillation.teacher_cache_settings import add_teachers, cache_settings, claim, shapes
from openeupe.distributed import Processes
from openeupe.errors import InputError
from openeupe.files import durable, read_mapping, remove_partials
from openeupe.identity import tensors_identity
from openeupe.locks import locked
from openeupe.progress import Progress

SHARD_BYTES = 2**28  # small enough that a kill costs seconds, large enough for a billion images
_COMPARED = 8  # views of an existing cache
_READERS = 4  # threads; hashing releases the lock


class TeacherCacheWriter:
    """Computes and caches the missing teacher tokens of all views.

    Args:
        stage: with its statistics fixed.
        folder: gets `teacher_cache.json` and the shards.
        batch: views that a teacher sees at once.
        workers: loader processes.
        images: `image_sets` of the views' sources, if they were read before.
    """

    def __init__(
        self,
        stage: Stage,
        views: RepeatedViews,
        folder: Path,
        processes: Processes,
        batch: int,
        workers: int,
        images: list[dict[str, object]] | None = None,
    ) -> None:
        self.images = images
        self.stage, self.views, self.folder = stage, views, folder
        self.processes, self.batch, self.workers = processes, batch, workers
        self.kind = stage.config.teacher_cache
        self.bytes = view_bytes(shapes(stage), self.kind)
        self.per_shard = max(1, min(SHARD_BYTES // self.bytes, len(views)))

    def write(self, progress: Progress) -> CachedTokens:
        """Announce the size, write what is missing, and report the error.

        A complete cache may hold more teachers than this stage has; missing teachers are added.

        Raises:
            InputError: if the disk is too small or gets full, or the cache is of other settings.
        """
        damaged = self._damaged()
        if damaged:
            names = ", ".join(shard_path(self.folder, s).name for s in sorted(damaged)[:5])
            progress.message(
                f"{self.stage.name}: {len(damaged)} damaged file(s) in {self.folder} ({names}): "
                "computed again",
            )
        with self._alone(damaged):
            return self._write(damaged, progress)

    def _damaged(self) -> set[int]:
        """Find damaged shards; each process checks its part."""
        here = self.processes
        there = here.gather_plain(sorted(shards_there(self.folder)))[0]
        with ThreadPoolExecutor(_READERS) as pool:
            own = there[here.rank :: here.count]
            whole = pool.map(is_whole, [shard_path(self.folder, shard) for shard in own])
            bad = [shard for shard, good in zip(own, whole, strict=True) if not good]
        return {shard for some in here.gather_plain(bad) for shard in some}

    def _alone(self, damaged: set[int]) -> AbstractContextManager[None]:
        """Lock of the folder. None for a complete cache, which several runs may read."""
        per_shard = read_mapping(self.folder / SETTINGS).get("per_shard")
        shards = range(-(-len(self.views) // per_shard)) if per_shard else range(0)
        whole = shards and not damaged and set(shards) <= shards_there(self.folder)
        whole = whole and not self._lacking(shards)
        if not self.processes.first or whole:
            return nullcontext()
        return locked(self.folder, "the teacher cache")

    def _write(self, damaged: set[int], progress: Progress) -> CachedTokens:
        here, found = self.processes, dict[str, Any]()
        settings = dict[str, Any]()
        if here.first:
            remove_partials(self.folder)
            settings = cache_settings(self.stage, self.views, here.device, self.images)
            found = claim(self.folder, settings, self.per_shard)
        made: tuple[int, list[str]] = (found.get("per_shard", 0), [*found.get("teachers", ())])
        self.per_shard, held = here.gather_plain(made)[0]
        shards = range(-(-len(self.views) // self.per_shard))
        there = shards_there(self.folder) - damaged
        missing = [s for s in shards if s not in there]
        lacking = self._lacking([s for s in shards if s in there])
        missing, lacking = here.gather_plain((missing, lacking))[0]  # all agree before one writes
        others = [name for name in held if name not in self.stage.teachers]
        if missing and others:
            raise InputError(
                f"{self.folder} is incomplete, and {', '.join(others)} of it is no teacher of "
                f"{self.stage.name}: finish the run that began it, or choose another folder"
            )
        teachers = list(self.stage.teachers)
        new = [name for name in teachers if any(name in some for some in lacking.values())]
        if len(missing) < len(shards):
            whole = [s for s in shards if s not in set(missing)]
            self._compare(whole, [name for name in teachers if name not in new])
        if here.first:
            add_teachers(self.folder, found, settings)
            self._announce(len(missing), len(lacking), new, progress)
        for some, wanted, extends in ((missing, teachers, False), ([*lacking], new, True)):
            if some:
                self._compute(some, wanted, extends, progress)
        here.wait()
        self._report(shards, progress)
        return CachedTokens(self.folder, self.per_shard, tuple(teachers))

    def _lacking(self, shards: Iterable[int]) -> dict[int, list[str]]:
        """Teachers that are missing in shards, by shard."""
        held = {shard: teachers_in(shard_path(self.folder, shard)) for shard in shards}
        lacking = {s: [t for t in self.stage.teachers if t not in own] for s, own in held.items()}
        return {shard: names for shard, names in lacking.items() if names}

    def _announce(self, missing: int, lacking: int, new: list[str], progress: Progress) -> None:
        if not missing + lacking:
            return
        size = self.bytes * len(self.views)
        added = view_bytes({k: v for k, v in shapes(self.stage).items() if k in new}, self.kind)
        each = self.bytes * missing + added * lacking
        needed = min(size, each * self.per_shard)
        free = shutil.disk_usage(self.folder).free
        progress.message(
            f"{self.stage.name}: teacher outputs of {len(self.views):,} views as {self.kind}: "
            f"{size / 2**30:.2f} GiB in {self.folder}, {needed / 2**30:.2f} to write, "
            f"{free / 2**30:.1f} free",
        )
        if needed > free:
            raise InputError(
                f"{self.folder}: the teacher outputs need {needed / 2**30:.2f} GiB and "
                f"{free / 2**30:.2f} are free: free space, set teacher_cache_path to another disk, "
                "lower views, or take teacher_cache: int8"
            )

    def _compute(
        self, missing: list[int], teachers: list[str], extends: bool, progress: Progress
    ) -> None:
        """Compute shards; each process takes its part.

        All processes run equally many teacher passes, as sharded weights require.

        extends: the shards exist, and these teachers are added.
        """
        here = self.processes
        rounds = -(-len(missing) // here.count)
        turns: list[tuple[int | None, range]] = []
        for i in range(rounds):
            place = i * here.count + here.rank
            shard = missing[place] if place < len(missing) else None
            for at in range(0, self.per_shard, self.batch):
                turns.append((shard, self._numbers(shard, at)))
        loader = loaded(_Chosen(self.views), [numbers for _, numbers in turns], self.workers)
        parts: dict[str, list[Tensor]] = {}
        with progress.task(f"{self.stage.name}: caching teacher outputs", len(turns)) as task:
            for turn, ((shard, numbers), read) in enumerate(zip(turns, loader, strict=True)):
                images, contents = read
                packed = self._pack(self.views.finish(images.to(here.device), numbers), teachers)
                packed["contents"] = contents
                for name, tensor in packed.items():
                    parts.setdefault(name, []).append(tensor[: len(numbers)].cpu())
                last = turn + 1 == len(turns) or turns[turn + 1][0] != shard
                if last and shard is not None:
                    whole = {k: torch.cat(v) for k, v in parts.items()}
                    off = {k: whole.pop(f"{k}.off").double().sum(0).tolist() for k in teachers}
                    if extends:
                        extend(shard_path(self.folder, shard), whole, off)
                    self._finish(shard, whole, off)
                if last:
                    parts = {}
                task.advance()

    def _numbers(self, shard: int | None, at: int) -> range:
        if shard is None:
            return range(0)
        first = shard * self.per_shard
        end = min(first + self.per_shard, len(self.views))
        return range(min(first + at, end), min(first + at + self.batch, end))

    @torch.no_grad()
    def _pack(self, images: Tensor, teachers: Sequence[str]) -> dict[str, Tensor]:
        """Images -> tensors to cache, and their quantization errors."""
        packed: dict[str, Tensor] = {}
        views = Views(images)
        for name in teachers:
            tokens = self.stage.teacher_tokens(name, views, 0)
            exact = self.stage.statistics[name](tokens)
            cached = pack(name, tokens if self.kind == "bf16" else exact, self.kind)
            back = restore(self.stage, name, cached)
            off = [(a - b).square().flatten(1).sum(1) for a, b in zip(exact, back, strict=True)]
            size = [a.square().flatten(1).sum(1) for a in exact]
            packed |= cached
            packed[f"{name}.off"] = torch.stack([off[0] + off[1], size[0] + size[1]], dim=1)
        return packed

    def _finish(self, shard: int, tensors: dict[str, Tensor], off: dict[str, list[float]]) -> None:
        """Write a shard atomically, with the errors of its tokens by teacher."""
        path = shard_path(self.folder, shard)
        contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
        about = {"off": json.dumps(off), DIGEST: tensors_identity(contiguous)}
        try:
            with durable(path) as partial:
                save_file(contiguous, partial, metadata=about)
        except (OSError, SafetensorError) as error:
            raise InputError(
                f"{path} cannot be written ({error}): free space and run distill again to resume"
            ) from None

    def _compare(self, shards: list[int], teachers: list[str]) -> None:
        """Compare some views of an existing cache with new teacher outputs.

        Images and settings are compared separately; this finds other differences, such as a
        library with other crops.
        """
        first = [shard * self.per_shard for shard in shards]
        rows = len(shards) * self.per_shard
        count = min(_COMPARED, self.batch, rows)
        places = [divmod(i * rows // count, self.per_shard) for i in range(count)]
        last = len(self.views) - 1
        numbers = sorted({min(first[shard] + row, last) for shard, row in places})
        images, contents = self.views.readable(numbers)
        cached = CachedTokens(self.folder, self.per_shard, tuple(teachers))
        now = self._pack(self.views.finish(images.to(self.processes.device), numbers), teachers)
        before = {k: v.to(self.processes.device) for k, v in cached(numbers).items()}
        same = torch.equal(contents, before.pop("contents").cpu())
        if not (same or teachers):
            raise InputError(
                f"{self.folder} holds outputs of other images: delete it or choose another folder"
            )
        for name in teachers:
            a, b = (restore(self.stage, name, cached).patches for cached in (now, before))
            close = (a - b).square().flatten(1).mean(1) <= 0.01 * a.square().flatten(1).mean(1)
            if not (same and close.all()):  # NaN is not close
                raise InputError(
                    f"{self.folder} holds outputs of another {name}, or of other images or "
                    "augmentation: delete it or choose another folder"
                )

    def _report(self, shards: range, progress: Progress) -> None:
        """Report the cache's relative error over all views, by teacher."""
        sums: dict[str, list[float]] = {name: [0.0, 0.0] for name in self.stage.teachers}
        if not self.processes.first:
            return
        for shard in shards:
            with safe_open(shard_path(self.folder, shard), "pt") as file:
                errors = json.loads(file.metadata()["off"])
            for name, total in sums.items():
                off, size = errors[name]
                total[0] += off
                total[1] += size
        shares = ", ".join(f"{k} {(off / size) ** 0.5:.2%}" for k, (off, size) in sums.items())
        progress.message(
            f"{self.stage.name}: cached as {self.kind}, relative error of the tokens: {shares}",
        )


class _Chosen(Dataset[tuple[Tensor, Tensor]]):
    """Ranges of view numbers -> views and contents. One black view for an empty range."""

    def __init__(self, views: RepeatedViews) -> None:
        self.views = views

    def __getitem__(self, numbers: range) -> tuple[Tensor, Tensor]:
        if not numbers:
            resolution = self.views.augment.resolution
            return torch.zeros(1, 3, resolution, resolution).byte(), torch.zeros(0, 8).byte()
        return self.views.readable(numbers)
