"""Random seeds derived from names, never from state."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray

_ROUNDS = 8  # more than security proofs ask for; tiny domains mix badly with fewer


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed that is a pure function of its names, e.g. `(seed, step, "augment")`.

    Same names, same seed, on every machine and Python version; `("ab", "c")` and `("a", "bc")`
    differ, and so do `1` and `"1"`.
    """
    encoded = json.dumps([part if isinstance(part, str) else int(part) for part in parts])
    digest = hashlib.blake2b(encoded.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Seed the global generators inside the block, then restore their states.

    Args:
        device: a GPU to seed as well; others are not changed.
    """
    with unchanged_draws(device):
        seed_draws(seed, device)
        yield


@contextmanager
def unchanged_draws(device: torch.device | None = None) -> Iterator[None]:
    """Restore the states of the global generators: the CPU's, and that of `device`."""
    state, own = torch.get_rng_state(), _generator(device)
    own_state = None if own is None else own.get_state()
    try:
        yield
    finally:
        torch.set_rng_state(state)
        if own is not None and own_state is not None:
            own.set_state(own_state)


def seed_draws(seed: int, device: torch.device | None = None) -> None:
    """Seed the global generators of the CPU and of a GPU `device`."""
    torch.default_generator.manual_seed(seed)  # that of torch would seed every GPU
    own = _generator(device)
    if own is not None:
        own.manual_seed(seed)


def _generator(device: torch.device | None) -> torch.Generator | None:
    """The global generator of a GPU; None for another device."""
    if device is None or device.type != "cuda":
        return None
    torch.cuda.init()
    index = torch.cuda.current_device() if device.index is None else device.index
    return torch.cuda.default_generators[index]


def shuffled(positions: NDArray[np.int64] | int, size: int, key: int) -> NDArray[np.int64]:
    """Map `positions` by a pseudo-random permutation of `range(size)`.

    Computed index by index (a Feistel network with cycle walking), because a permutation array
    of a billion images would not fit a loader worker.

    Args:
        positions: int64 array of any shape, or one int, within `range(size)`.
        size: length of the permutation, at least 1.
        key: non-negative, below 2**64; each key is another permutation.

    Returns:
        int64 array of the shape of `positions`.

    Raises:
        ValueError: if `size` is below 1 or a position is outside `range(size)`.
    """
    start = np.asarray(positions, dtype=np.int64)
    if size < 1 or (start.size and (start.min() < 0 or start.max() >= size)):
        raise ValueError(f"positions must be in range({size})")
    half = max(1, ((size - 1).bit_length() + 1) // 2)  # bits of each half: domain < 4 * size
    with np.errstate(over="ignore"):  # arithmetic modulo 2**64 is what is wanted
        keys = _mix(np.uint64(key) + np.arange(1, _ROUNDS + 1, dtype=np.uint64) * _GOLDEN)
        values = start.astype(np.uint64).ravel()
        walking = np.arange(values.size)
        # Values that leave range(size) walk on along their cycle until they are back inside.
        while walking.size:
            values[walking] = _feistel(values[walking], half, keys)
            walking = walking[values[walking] >= size]
    return values.astype(np.int64).reshape(start.shape)


def uniform(seeds: NDArray[np.uint64], count: int) -> NDArray[np.float32]:
    """`count` uniform numbers in [0, 1) for each of n seeds: float32 `[n, count]`.

    A pure function of each seed (SplitMix64), independent of the other seeds.
    """
    with np.errstate(over="ignore"):
        steps = np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN
        bits = _mix(_mix(seeds)[:, None] + steps) >> np.uint64(40)
    return bits.astype(np.float32) * np.float32(2**-24)


_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _feistel(values: NDArray[np.uint64], half: int, keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    bits, mask = np.uint64(half), np.uint64((1 << half) - 1)
    left, right = values >> bits, values & mask
    for key in keys:
        left, right = right, left ^ (_mix(right + key) & mask)
    return (left << bits) | right


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finalizer of SplitMix64 (Steele et al., 2014): every input bit reaches every output."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
