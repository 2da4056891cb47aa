"""Computing the teacher outputs of a store: announced, resumed after a kill, and measured."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, cast

import torch
from rich.console import Console
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import Dataset

from openeupe.data import RepeatedViews
from openeupe.data.workers import loaded
from openeupe.distill.parallel import Processes
from openeupe.distill.stage import Stage, Views
from openeupe.distill.store import (
    DIGEST,
    SETTINGS,
    StoredTokens,
    is_whole,
    pack,
    restore,
    shard_path,
    shards_there,
    view_bytes,
)
from openeupe.encoders import Encoder
from openeupe.errors import InputError
from openeupe.files import durable, read_mapping, remove_partials, write_atomically
from openeupe.identity import tensors_identity
from openeupe.locks import locked

SHARD_BYTES = 2**28  # small enough that a kill costs seconds, large enough for a billion images
_READERS = 4  # threads; hashing releases the lock


class StoreWriter:
    """Computes the teachers' tokens of all views into a store, or what is missing of them.

    Args:
        stage: with its statistics fixed.
        folder: gets `store.json` and the shards.
        batch: views that a teacher sees at once.
        workers: loader processes.
    """

    def __init__(
        self,
        stage: Stage,
        views: RepeatedViews,
        folder: Path,
        processes: Processes,
        batch: int,
        workers: int,
    ) -> None:
        self.stage, self.views, self.folder = stage, views, folder
        self.processes, self.batch, self.workers = processes, batch, workers
        self.kind = stage.config.store
        self.bytes = view_bytes(_shapes(stage), self.kind)
        self.per_shard = max(1, min(SHARD_BYTES // self.bytes, len(views)))

    def write(self, console: Console) -> StoredTokens:
        """Announce the size, write what is missing, report the error; then what reads it.

        A whole store of more teachers than this stage has serves it, too.

        Raises:
            InputError: if the disk is too small or gets full, or the store is another stage's.
        """
        damaged = self._damaged()
        if damaged:
            names = ", ".join(shard_path(self.folder, s).name for s in sorted(damaged)[:5])
            console.print(
                f"{self.stage.name}: {len(damaged)} damaged file(s) in {self.folder} ({names}): "
                "computed again",
                soft_wrap=True,
                highlight=False,
            )
        with self._alone(damaged):
            return self._write(damaged, console)

    def _damaged(self) -> set[int]:
        """Shards that are not what was written; each process looks at its part."""
        here = self.processes
        there = here.gather_plain(sorted(shards_there(self.folder)))[0]
        with ThreadPoolExecutor(_READERS) as pool:
            own = there[here.rank :: here.count]
            whole = pool.map(is_whole, [shard_path(self.folder, shard) for shard in own])
            bad = [shard for shard, good in zip(own, whole, strict=True) if not good]
        return {shard for some in here.gather_plain(bad) for shard in some}

    def _alone(self, damaged: set[int]) -> AbstractContextManager[None]:
        """The lock of the folder; none where nothing is missing: several runs may read it."""
        per_shard = read_mapping(self.folder / SETTINGS).get("per_shard")
        shards = range(-(-len(self.views) // per_shard)) if per_shard else range(0)
        whole = shards and not damaged and set(shards) <= shards_there(self.folder)
        if not self.processes.first or whole:
            return nullcontext()
        self.folder.mkdir(parents=True, exist_ok=True)
        return locked(self.folder, "the store")

    def _write(self, damaged: set[int], console: Console) -> StoredTokens:
        if self.processes.first:
            remove_partials(self.folder)
            self._claim()
        self.processes.wait()
        held = json.loads((self.folder / SETTINGS).read_text(encoding="utf-8"))
        self.per_shard = held["per_shard"]
        stored = StoredTokens(self.folder, self.per_shard, tuple(self.stage.teachers))
        shards = range(-(-len(self.views) // self.per_shard))
        there = shards_there(self.folder) - damaged
        missing = [s for s in shards if s not in there]
        missing = self.processes.gather_plain(missing)[0]  # all agree, before anyone writes
        others = [name for name in held["teachers"] if name not in self.stage.teachers]
        if missing and others:
            raise InputError(
                f"{self.folder} is not whole yet, and {', '.join(others)} of it is no teacher of "
                f"{self.stage.name}: let the run that began it go on, or choose another folder"
            )
        if len(missing) < len(shards):
            self._compare(stored, next(s for s in shards if s not in set(missing)))
        if missing:
            if self.processes.first:
                self._announce(len(missing), console)
            self._compute(missing, console)
        self.processes.wait()
        self._report(shards, console)
        return stored

    def _claim(self) -> None:
        """Make the folder, or find it made with the same settings."""
        settings: dict[str, Any] = {
            "kind": self.kind,
            "views": self.views.views,
            "images": len(self.views) // self.views.views,
            "teachers": {name: list(shape) for name, shape in _shapes(self.stage).items()},
        }
        path = self.folder / SETTINGS
        if path.is_file():
            before = json.loads(path.read_text(encoding="utf-8"))
            held = before["teachers"]
            before["teachers"] = {name: held.get(name) for name in settings["teachers"]}
            for name, value in settings.items():
                if before.get(name) != value:
                    raise InputError(
                        f"{self.folder} holds teacher outputs of other settings ({name}: "
                        f"{before.get(name)} then, {value} now): delete it or choose another folder"
                    )
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        settings["per_shard"] = self.per_shard
        write_atomically(path, json.dumps(settings, indent=2))

    def _announce(self, missing: int, console: Console) -> None:
        size = self.bytes * len(self.views)
        needed = min(size, self.bytes * self.per_shard * missing)
        free = shutil.disk_usage(self.folder).free
        console.print(
            f"{self.stage.name}: teacher outputs of {len(self.views):,} views as {self.kind}: "
            f"{size / 2**30:.2f} GiB in {self.folder}, {needed / 2**30:.2f} to write, "
            f"{free / 2**30:.1f} free",
            soft_wrap=True,
            highlight=False,
        )
        if needed > free:
            raise InputError(
                f"{self.folder}: the teacher outputs need {needed / 2**30:.2f} GiB and "
                f"{free / 2**30:.2f} are free: free space, set store_path to another disk, "
                "lower views, or take store: int8"
            )

    def _compute(self, missing: list[int], console: Console) -> None:
        """Each process takes its shards; all make as many teacher passes, as shards of weights
        demand.
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
        with console.status(f"{self.stage.name}: storing teacher outputs") as status:
            for turn, ((shard, numbers), images) in enumerate(zip(turns, loader, strict=True)):
                packed = self._pack(self.views.finish(images.to(here.device), numbers))
                for name, tensor in packed.items():
                    parts.setdefault(name, []).append(tensor[: len(numbers)].cpu())
                last = turn + 1 == len(turns) or turns[turn + 1][0] != shard
                if last and shard is not None:
                    self._finish(shard, {k: torch.cat(v) for k, v in parts.items()})
                if last:
                    parts = {}
                status.update(f"{self.stage.name}: storing teacher outputs {turn + 1}/{len(turns)}")

    def _numbers(self, shard: int | None, at: int) -> range:
        if shard is None:
            return range(0)
        first = shard * self.per_shard
        end = min(first + self.per_shard, len(self.views))
        return range(min(first + at, end), min(first + at + self.batch, end))

    @torch.no_grad()
    def _pack(self, images: Tensor) -> dict[str, Tensor]:
        """Images -> the tensors that are kept of them, and how much they are off."""
        packed: dict[str, Tensor] = {}
        views = Views(images)
        for name in self.stage.teachers:
            tokens = self.stage.teacher_tokens(name, views, 0)
            exact = self.stage.statistics[name](tokens)
            kept = pack(name, tokens if self.kind == "bf16" else exact, self.kind)
            back = restore(self.stage, name, kept)
            off = [(a - b).square().flatten(1).sum(1) for a, b in zip(exact, back, strict=True)]
            size = [a.square().flatten(1).sum(1) for a in exact]
            packed |= kept
            packed[f"{name}.off"] = torch.stack([off[0] + off[1], size[0] + size[1]], dim=1)
        return packed

    def _finish(self, shard: int, tensors: dict[str, Tensor]) -> None:
        """Write a shard whole or not at all."""
        off = {
            name: tensors.pop(f"{name}.off").double().sum(0).tolist()
            for name in self.stage.teachers
        }
        path = shard_path(self.folder, shard)
        contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
        about = {"off": json.dumps(off), DIGEST: tensors_identity(contiguous)}
        try:
            with durable(path) as partial:
                save_file(contiguous, partial, metadata=about)
        except (OSError, SafetensorError) as error:
            raise InputError(
                f"{path} cannot be written ({error}): free space and run distill again, what is "
                "stored is kept"
            ) from None

    def _compare(self, stored: StoredTokens, shard: int) -> None:
        """A store that is found must hold what these teachers say of these views."""
        numbers = self._numbers(shard, 0)[:1]
        images = self.views.readable(numbers).to(self.processes.device)
        now = self._pack(self.views.finish(images, numbers))
        before = {k: v.to(self.processes.device) for k, v in stored(numbers).items()}
        for name in self.stage.teachers:
            a, b = (restore(self.stage, name, kept).patches for kept in (now, before))
            if (a - b).square().mean() > 0.01 * a.square().mean():
                raise InputError(
                    f"{self.folder} holds outputs of another {name}, or of other images or "
                    "augmentation: delete it or choose another folder"
                )

    def _report(self, shards: range, console: Console) -> None:
        """The relative error of what is stored, over all views, by teacher."""
        sums: dict[str, list[float]] = {name: [0.0, 0.0] for name in self.stage.teachers}
        if not self.processes.first:
            return
        for shard in shards:
            with safe_open(shard_path(self.folder, shard), "pt") as file:
                told = json.loads(file.metadata()["off"])
            for name, total in sums.items():
                off, size = told[name]
                total[0] += off
                total[1] += size
        errors = ", ".join(f"{k} {(off / size) ** 0.5:.2%}" for k, (off, size) in sums.items())
        console.print(
            f"{self.stage.name}: stored as {self.kind}, relative error of the tokens: {errors}",
            soft_wrap=True,
            highlight=False,
        )


def _shapes(stage: Stage) -> dict[str, tuple[int, int, int]]:
    """Widths of class and patch tokens and number of patches, by teacher."""
    shapes = {}
    for name, teacher in cast(Mapping[str, Encoder], stage.teachers).items():
        side = stage.config.teachers[name].resolution[0]
        grid = side // teacher.patch_size
        shapes[name] = (teacher.cls_dim, teacher.patch_dim, grid * grid)
    return shapes


class _Chosen(Dataset[Tensor]):
    """Ranges of view numbers -> views; one black view for an empty range."""

    def __init__(self, views: RepeatedViews) -> None:
        self.views = views

    def __getitem__(self, numbers: range) -> Tensor:
        if not numbers:
            side = self.views.augment.side
            return torch.zeros(1, 3, side, side, dtype=torch.uint8)
        return self.views.readable(numbers)
