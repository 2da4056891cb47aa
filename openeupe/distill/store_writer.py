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

from openeupe.data import RepeatedViews, changed, image_sets
from openeupe.data.workers import loaded
from openeupe.distill.precision import resolve_precision
from openeupe.distill.run_folder import difference
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
from openeupe.distributed import Processes
from openeupe.encoders import Encoder
from openeupe.errors import InputError
from openeupe.files import durable, read_mapping, remove_partials, write_atomically
from openeupe.identity import facts_identity, tensors_identity
from openeupe.locks import locked

SHARD_BYTES = 2**28  # small enough that a kill costs seconds, large enough for a billion images
_COMPARED = 8  # views of a store that is found
_READERS = 4  # threads; hashing releases the lock


class StoreWriter:
    """Computes the teachers' tokens of all views into a store, or what is missing of them.

    Args:
        stage: with its statistics fixed.
        folder: gets `store.json` and the shards.
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
        images: list[dict[str, Any]] | None = None,
    ) -> None:
        self.images = images
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
            self._compare(stored, [s for s in shards if s not in set(missing)])
        if missing:
            if self.processes.first:
                self._announce(len(missing), console)
            self._compute(missing, console)
        self.processes.wait()
        self._report(shards, console)
        return stored

    def _claim(self) -> None:
        """Make the folder, or find it made with the same settings."""
        settings, path = self._settings(), self.folder / SETTINGS
        if not path.is_file():
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(path, json.dumps(settings | {"per_shard": self.per_shard}, indent=2))
            return
        before = read_mapping(path)
        if not {"data", "teachers", "per_shard"} <= before.keys():
            raise InputError(
                f"{self.folder} was made by an earlier version, which did not record what images "
                f"its teacher outputs are of, or {SETTINGS} is damaged: delete it or choose "
                "another folder"
            )
        before.pop("per_shard")
        before["teachers"] = {k: before["teachers"].get(k) for k in settings["teachers"]}
        others = changed(before.pop("data"), settings.pop("data"))
        if others:
            raise InputError(
                f"{self.folder} holds teacher outputs of other images ({others}): put those images "
                "back, delete it or choose another folder"
            )
        found = difference(before, settings)
        if found:
            raise InputError(
                f"{self.folder} holds teacher outputs of other settings ({found}): delete it or "
                "choose another folder"
            )

    def _settings(self) -> dict[str, Any]:
        """All that the outputs depend on, as plain data: views, and teachers by their weights.

        Each image's contents are compared when it is trained on (`Batches`); all else is here.
        """
        views, config = self.views, self.stage.config
        precision = resolve_precision(config.teacher_precision, self.processes.device)
        return {
            "data": self.images or image_sets(views.sources),
            "kind": self.kind,
            "views": views.views,
            "seed": views.seed,
            "side": views.augment.side,
            "reduced_decode": views.least_side is not None,
            "augment": views.augment.config.model_dump(mode="json"),
            "teacher_precision": precision,
            "teachers": {name: self._teacher(name, s) for name, s in _shapes(self.stage).items()},
        }

    def _teacher(self, name: str, shape: tuple[int, int, int]) -> dict[str, Any]:
        about = {"shape": list(shape), "identity": self.stage.identities[name]}
        if self.kind == "int8":  # kept standardized, so of use with these statistics alone
            measured = self.stage.statistics[name].state_dict()
            about["statistics"] = facts_identity({k: v.tolist() for k, v in measured.items()})
        return about

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
            for turn, ((shard, numbers), read) in enumerate(zip(turns, loader, strict=True)):
                images, contents = read
                packed = self._pack(self.views.finish(images.to(here.device), numbers))
                packed["contents"] = contents
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

    def _compare(self, stored: StoredTokens, shards: list[int]) -> None:
        """Some views of a store that is found must be what the teachers give of them now.

        Images and settings are compared as such; this finds what they do not name, such as a
        library that draws other crops.
        """
        first = [shard * self.per_shard for shard in shards]
        rows = len(shards) * self.per_shard
        count = min(_COMPARED, self.batch, rows)
        places = [divmod(i * rows // count, self.per_shard) for i in range(count)]
        last = len(self.views) - 1
        numbers = sorted({min(first[shard] + row, last) for shard, row in places})
        images, contents = self.views.readable(numbers)
        now = self._pack(self.views.finish(images.to(self.processes.device), numbers))
        before = {k: v.to(self.processes.device) for k, v in stored(numbers).items()}
        same = torch.equal(contents, before.pop("contents").cpu())
        for name in self.stage.teachers:
            a, b = (restore(self.stage, name, kept).patches for kept in (now, before))
            close = (a - b).square().flatten(1).mean(1) <= 0.01 * a.square().flatten(1).mean(1)
            if not (same and close.all()):  # NaN is not close
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


class _Chosen(Dataset[tuple[Tensor, Tensor]]):
    """Ranges of view numbers -> views and contents; one black view for an empty range."""

    def __init__(self, views: RepeatedViews) -> None:
        self.views = views

    def __getitem__(self, numbers: range) -> tuple[Tensor, Tensor]:
        if not numbers:
            side = self.views.augment.side
            return torch.zeros(1, 3, side, side).byte(), torch.zeros(0, 8).byte()
        return self.views.readable(numbers)
