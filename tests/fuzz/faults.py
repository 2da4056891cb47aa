"""Faults: of bytes, and of the values of settings."""

from __future__ import annotations

import json
import random
from typing import Any

_STRANGE: list[Any] = [
    *(None, True, -1, 0, 7, 10**9, 10**30, 1e400, float("nan"), 0.5, -1e-300, "", "x", "\x00"),
    *("é" * 300, "a\nb", "..", "/", "[/x]", "$\\frac{", [], [[]], [1, "a"], {}, {"a": {"b": []}}),
    *({1: 2}, {"name": "x"}, "stage:", "stage:x/y", "../../etc", "hf-hub:", "2026-01-01", "\udcff"),
    *("inf", "/dev/zero", "/dev/full", [0] * 3000, "x" * 5000),
]
_TOKENS = [
    *(b"\x00", b"\xff" * 4, b"[" * 5000, b"{a: " * 3000, b"&a *a", b"!!python/object:os.system"),
    *(b"<<: *x", b"- " * 2000, b"1e999", b"\r", b"\t", b"%YAML", b"? ", b"'", b'"\\ud800"', b"NaN"),
    *(b"!!int x", b"2026-13-45", b"9" * 5000, b'"a\\nb": 1', b"null", b"\n---\n", b"\xef\xbb\xbf"),
]


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
    """Settings with one to three of their values or keys, at any depth, replaced or removed."""
    value = json.loads(json.dumps(value))
    for _ in range(rng.randint(1, 3)):
        here = value
        while isinstance(here, dict | list) and here:
            key = rng.choice(list(here) if isinstance(here, dict) else range(len(here)))
            if not isinstance(here[key], dict | list) or not here[key] or rng.random() < 0.3:
                _replace(here, key, rng)
                break
            here = here[key]
    return value


def _replace(here: Any, key: Any, rng: random.Random) -> None:
    chance = rng.random()
    if chance < 0.15:
        del here[key]
    elif chance < 0.25 and isinstance(here, dict):
        here[strange_text(rng)] = here.pop(key)
    else:
        here[key] = rng.choice(_STRANGE)


def strange_text(rng: random.Random) -> str:
    """A text that names or numbers should not be."""
    return rng.choice([text for text in _STRANGE if isinstance(text, str)])


def strange_json(data: bytes, rng: random.Random) -> bytes:
    """JSON with faults in its values or, as often, in its bytes."""
    if rng.random() < 0.5:
        return mutated(data, rng)
    return json.dumps(strange(json.loads(data), rng)).encode()
