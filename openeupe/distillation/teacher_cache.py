"""On-disk cache of teacher tokens.

A cache is a folder of safetensors shards, each with the tokens of a range of views and
the identity of their images, and `teacher_cache.json`.
`bf16` caches the teachers' own tokens; `int8` the standardized ones, with a float32 scale per
token.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from openeupe.distillation.stage import Stage
from openeupe.encoders import Tokens
from openeupe.errors import InputError
from openeupe.files import remove_partials
from openeupe.identity import tensors_identity
from openeupe.locks import LOCK

CACHE = "teacher_cache"  # default folder, inside that of the stage
SETTINGS = "teacher_cache.json"
DIGEST = "digest"  # in a shard's metadata
_SHARD = r"(\d{8,})\.safetensors"
_OPEN_SHARDS = 64


class CachedTokens:
    """Reads some teachers' tokens of views by their numbers. Can be sent to loader workers."""

    def __init__(self, folder: Path, per_shard: int, teachers: tuple[str, ...]) -> None:
        self.folder = folder
        self.per_shard = per_shard
        self.teachers = teachers
        self._open: OrderedDict[int, Any] = OrderedDict()

    def __call__(self, numbers: Sequence[int]) -> dict[str, Tensor]:
        """Tensors by name, `[len(numbers), ...]`; `contents` are those of `RepeatedViews`."""
        rows: dict[str, list[Tensor]] = {}
        for number in numbers:
            shard, row = divmod(number, self.per_shard)
            for name, tensor in self._shard(shard).items():
                rows.setdefault(name, []).append(tensor[row : row + 1])
        return {name: torch.cat(parts) for name, parts in rows.items()}

    def _shard(self, shard: int) -> dict[str, Any]:
        if shard in self._open:
            self._open.move_to_end(shard)
        else:
            if len(self._open) == _OPEN_SHARDS:
                self._open.popitem(last=False)
            path = shard_path(self.folder, shard)
            try:
                file = safe_open(path, "pt")
                wanted = (*self.teachers, "")  # "": of the view itself
                names = [n for n in file.keys() if n.rpartition(".")[0] in wanted]  # noqa: SIM118
                self._open[shard] = {name: file.get_slice(name) for name in names}
            except (OSError, SafetensorError) as error:
                raise InputError(
                    f"{path} cannot be read ({error}): delete it and run distill again"
                ) from None
        found: dict[str, Any] = self._open[shard]
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict()}


def view_bytes(teachers: dict[str, tuple[int, int, int]], kind: str) -> int:
    """Bytes of one view's tokens.

    Args:
        teachers: by name, the widths of class and patch tokens and the number of patches.
        kind: `bf16` or `int8`.
    """
    total = 0
    for cls_dim, patch_dim, patches in teachers.values():
        values = cls_dim + patch_dim * patches
        total += 2 * values if kind == "bf16" else values + 4 * (1 + patches)
    return total


def shard_path(folder: Path, shard: int) -> Path:
    """Path of a shard."""
    return folder / f"{shard:08d}.safetensors"


def shards_there(folder: Path) -> set[int]:
    """Numbers of the shards in a folder."""
    found = (
        (re.fullmatch(_SHARD, path.name) for path in folder.iterdir()) if folder.is_dir() else ()
    )
    return {int(one[1]) for one in found if one}


def teachers_in(shard: Path) -> set[str]:
    """Names of the teachers whose outputs a shard holds."""
    try:
        with safe_open(shard, "pt") as file:
            return {name.rpartition(".")[0] for name in file.keys()} - {""}  # noqa: SIM118
    except (OSError, SafetensorError):
        return set()


def extend(shard: Path, tensors: dict[str, Tensor], off: dict[str, list[float]]) -> None:
    """Merge new outputs and errors into a shard of other teachers.

    Raises:
        InputError: if the new outputs are not of the shard's images.
    """
    with safe_open(shard, "pt") as file:
        before = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        known = json.loads(file.metadata()["off"])
    if not torch.equal(before["contents"], tensors["contents"]):
        raise InputError(
            f"{shard} holds outputs of other images: put those images back, or delete it"
        )
    tensors |= {name: tensor for name, tensor in before.items() if name not in tensors}
    off |= {name: one for name, one in known.items() if name not in off}


def is_whole(shard: Path) -> bool:
    """Whether a shard equals what was written."""
    try:
        with safe_open(shard, "pt") as file:
            digest = (file.metadata() or {}).get(DIGEST)
            names = file.keys()
            return digest == tensors_identity({name: file.get_tensor(name) for name in names})
    except (OSError, SafetensorError):
        return False


def remove_cache(folder: Path) -> None:
    """Remove the files of a cache; other files in its folder stay."""
    for path in list(folder.iterdir()) if folder.is_dir() and not folder.is_symlink() else ():
        if path.name in (SETTINGS, LOCK) or re.fullmatch(_SHARD, path.name):
            path.unlink()
    remove_partials(folder)
    with suppress(OSError):  # not empty, or not there
        folder.rmdir()


def cached_targets(stage: Stage, cached: dict[str, Tensor]) -> dict[str, Tokens]:
    """Cached tensors -> standardized float32 tokens by teacher, as `Stage.targets` makes them."""
    return {name: restore(stage, name, cached) for name in stage.teachers}


def restore(stage: Stage, teacher: str, cached: dict[str, Tensor]) -> Tokens:
    """`cached_targets` of one teacher."""
    tokens = [cached[f"{teacher}.{kind}"] for kind in ("cls", "patches")]
    if f"{teacher}.cls_scale" not in cached:
        standardized: Tokens = stage.statistics[teacher](Tokens(*tokens))
        return standardized
    scales = [cached[f"{teacher}.{kind}_scale"] for kind in ("cls", "patches")]
    return Tokens(*(t.float() * s for t, s in zip(tokens, scales, strict=True)))


def pack(teacher: str, tokens: Tokens, kind: str) -> dict[str, Tensor]:
    """Tokens -> tensors to cache, by name."""
    cached: dict[str, Tensor] = {}
    for field, tensor in tokens._asdict().items():
        if kind == "bf16":
            cached[f"{teacher}.{field}"] = tensor.bfloat16()
            continue
        scale = tensor.abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / 127
        cached[f"{teacher}.{field}"] = (tensor / scale).round().to(torch.int8)
        cached[f"{teacher}.{field}_scale"] = scale
    return cached
