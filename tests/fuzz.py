"""Malformed inputs by the thousand: each must be read, or refused in one line, and soon.

    python -m tests.fuzz 2500     # of each kind; prints what was tried and what was found

Bytes of good files are flipped, cut, doubled and overwritten; the values of good settings are
replaced by others of every type. A kind is a function: random generator, folder -> nothing. What it
may raise is `InputError` in one line, and `BrokenImage`.
"""

from __future__ import annotations

import io
import json
import random
import signal
import sys
import tarfile
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image

import openeupe
from openeupe.data import BrokenImage, ShardSource, decode
from openeupe.distill.recipe import load_recipe
from openeupe.encoders import save, timm_folder, transformers_folder
from openeupe.errors import InputError
from openeupe.evaluate.suite import load_suite

LIMIT_S = 20  # for one input, on a busy machine
_STRANGE: list[Any] = [
    None, True, -1, 0, 7, 1e400, float("nan"), 0.5, "", "x", "\x00", "é" * 300, [], [[]], [1, "a"],
    {}, {"a": {"b": []}}, {1: 2}, "stage:", "stage:x/y", "../../etc", "hf-hub:", "2026-01-01",
]  # fmt: skip
_TOKENS = [
    b"\x00", b"\xff" * 4, b"[" * 5000, b"{a: " * 3000, b"&a *a", b"!!python/object:os.system",
    b"<<: *x", b"- " * 2000, b"1e999", b"\r", b"\t", b"%YAML", b"? ", b"'", b'"\\ud800"',
]  # fmt: skip


def mutated(data: bytes, rng: random.Random) -> bytes:
    """A copy with one to four faults."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(changed) + 1)
        fault = rng.randrange(7)
        if fault == 0 and changed:
            changed[at % len(changed)] ^= 1 << rng.randrange(8)
        elif fault == 1:
            del changed[at:]
        elif fault == 2:
            del changed[at : at + rng.randint(1, 64)]
        elif fault == 3:
            changed[at : at + 4] = rng.randbytes(4)
        elif fault == 4:
            changed[at:at] = changed[at : at + rng.randint(1, 200)]
        elif fault == 5:
            changed[at : at + 8] = rng.choice((b"\xff" * 8, b"\x00" * 8, b"\x7f" + b"\xff" * 7))
        else:
            changed[at:at] = rng.choice(_TOKENS)
    return bytes(changed)


def strange(value: Any, rng: random.Random) -> Any:
    """Settings with one to three of their values, at any depth, replaced or removed."""
    value = json.loads(json.dumps(value))
    for _ in range(rng.randint(1, 3)):
        here = value
        while isinstance(here, dict | list) and here:
            key = rng.choice(list(here) if isinstance(here, dict) else range(len(here)))
            if not isinstance(here[key], dict | list) or not here[key] or rng.random() < 0.3:
                if rng.random() < 0.15:
                    del here[key]
                else:
                    here[key] = rng.choice(_STRANGE)
                break
            here = here[key]
    return value


def _recipe_bytes(rng: random.Random, folder: Path) -> None:
    good = Path(openeupe.__file__).parent / "recipes" / rng.choice(["eupe.yaml", "quickstart.yaml"])
    path = folder / "recipe.yaml"
    path.write_bytes(mutated(good.read_bytes(), rng))
    load_recipe(path)


def _recipe_values(rng: random.Random, folder: Path) -> None:
    good = Path(openeupe.__file__).parent / "recipes" / "eupe.yaml"
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(strange(yaml.safe_load(good.read_text()), rng)))
    load_recipe(path, rng.choice([None, ["seed=["], ["a.b=1"], ["stages=3"], ["=", "x="]]))


def _suite_values(rng: random.Random, folder: Path) -> None:
    good = Path(openeupe.__file__).parent / "suites" / "eupe.yaml"
    path = folder / "suite.yaml"
    path.write_text(yaml.safe_dump(strange(yaml.safe_load(good.read_text()), rng)))
    load_suite(path)


def _image(rng: random.Random, folder: Path) -> None:
    form = rng.choice(["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
    decode(mutated(_encoded(form), rng), "it", least_side=rng.choice([None, 16]))


def _encoded(form: str, kept: dict[str, bytes] = {}) -> bytes:  # noqa: B006  (a cache)
    if form not in kept:
        pixels = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, form)
        kept[form] = file.getvalue()
    return kept[form]


def _shard(rng: random.Random, folder: Path) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name in ("0.jpg", "../../1.png", "a/2.jpg", "/etc/3.jpg", "link.jpg", "0.json"):
            member = tarfile.TarInfo(name)
            data = _encoded("JPEG")
            member.size = len(data)
            if name == "link.jpg":
                member.type, member.linkname, member.size = tarfile.SYMTYPE, "/etc/passwd", 0
            tar.addfile(member, io.BytesIO(data))
    path = folder / "it.tar"
    path.write_bytes(mutated(file.getvalue(), rng))
    source = ShardSource(path)
    for index in range(len(source)):
        try:
            source.read(index)
        except BrokenImage:
            source.name(index)


def _weights(rng: random.Random, folder: Path) -> None:
    form = rng.choice(["own.safetensors", "pt", "safetensors"])
    good = _forms()
    if form == "own.safetensors":
        for name, data in good["own"].items():
            path = folder / name
            path.write_bytes(mutated(data, rng) if path.suffix == ".safetensors" else data)
        openeupe.load(folder)
        return
    path = folder / f"EUPE-ViT-T.{form}"
    path.write_bytes(mutated(good[form]["file"], rng))
    openeupe.load(path)


def _config(rng: random.Random, folder: Path) -> None:
    good = _forms()[rng.choice(["own", "timm", "transformers"])]
    for name, data in good.items():
        if name == "config.json" or (name.endswith(".json") and rng.random() < 0.5):
            told = json.dumps(strange(json.loads(data), rng)).encode()
            data = mutated(data, rng) if rng.random() < 0.5 else told
        (folder / name).write_bytes(data)
    openeupe.load(folder)


def _forms(kept: dict[str, dict[str, bytes]] = {}) -> dict[str, dict[str, bytes]]:  # noqa: B006
    """Good files to begin from: each a folder's names and bytes."""
    if not kept:
        with tempfile.TemporaryDirectory() as scratch:
            for form in ("own", "timm", "transformers"):
                there = Path(scratch) / form
                small = openeupe.create("eupe_vit_t", depth=1, embed_dim=32, num_heads=2)
                if form == "own":
                    save(small, there)
                else:
                    there.mkdir()
                if form == "timm":
                    timm_folder.save(openeupe.create("test_vit"), there, "mit")
                elif form == "transformers":
                    transformers_folder.save(small, there)
                kept[form] = {path.name: path.read_bytes() for path in there.iterdir()}
            path = Path(scratch) / "it"
            tensors = {"cls_token": torch.zeros(1, 1, 8), "storage_tokens": torch.zeros(1, 4, 8),
                       "blocks.0.attn.qkv.bias": torch.zeros(24)}  # fmt: skip
            torch.save(tensors, path)
            kept["pt"] = {"file": path.read_bytes()}
            kept["safetensors"] = {"file": kept["own"]["model.safetensors"]}
    return kept


KINDS: dict[str, Callable[[random.Random, Path], None]] = {
    "recipe, bytes": _recipe_bytes,
    "recipe, values": _recipe_values,
    "suite, values": _suite_values,
    "image": _image,
    "tar shard": _shard,
    "weights": _weights,
    "config": _config,
}


def attempt(kind: str, seed: int) -> str | None:
    """Try one input; what went wrong, or None."""

    def late(*_: Any) -> None:
        raise TimeoutError(f"more than {LIMIT_S} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(LIMIT_S)
    try:
        with tempfile.TemporaryDirectory() as folder:
            KINDS[kind](random.Random(f"{kind} {seed}"), Path(folder))
    except InputError as error:
        return f"{kind} {seed}: several lines: {error!r}" if "\n" in str(error) else None
    except BrokenImage:
        return None
    except BaseException as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return f"{kind} {seed}: {error!r:.300} at {where.filename}:{where.lineno}"
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    return None


def main() -> None:
    count, total, found = int(sys.argv[1]), 0, []
    for kind in sys.argv[2:] or KINDS:
        started = time.perf_counter()
        wrong = [w for seed in range(count) if (w := attempt(kind, seed))]
        total, found = total + count, found + wrong
        print(f"{kind}: {count} inputs, {len(wrong)} wrong, {time.perf_counter() - started:.0f} s")
        print("\n".join(wrong[:12]), flush=True)
    print(f"{total} inputs, {len(found)} wrong")


if __name__ == "__main__":
    main()
