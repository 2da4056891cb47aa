from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch

import openeupe
from openeupe.seeds import derive_seed, seeded, shuffled


def test_seed_is_a_fixed_function_of_its_names() -> None:
    assert derive_seed(0, 7, "augment") == derive_seed(np.int64(0), 7, "augment")
    assert derive_seed(0) == 6197007067532723406  # written down: no release may change it


def test_names_are_not_run_together() -> None:
    names = [("ab", "c"), ("a", "bc"), ("abc",), (1,), ("1",), (1, 2), (12,), ("1,2",), (-1,), ()]
    assert len({derive_seed(*parts) for parts in names}) == len(names)


def test_seeds_fill_63_bits() -> None:
    seeds = [derive_seed("x", n) for n in range(500)]
    assert len(set(seeds)) == 500
    assert min(seeds) >= 0
    assert 2**62 < max(seeds) < 2**63


@pytest.mark.parametrize("size", [*range(1, 40), 63, 64, 65, 255, 1000, 1024, 4097, 50_021])
def test_shuffled_is_a_permutation(size: int) -> None:
    for key in (0, 1, derive_seed("key")):
        out = shuffled(np.arange(size), size, key)
        assert np.array_equal(np.sort(out), np.arange(size))


def test_shuffled_answers_index_by_index() -> None:
    whole = shuffled(np.arange(1000), 1000, 5)
    assert [int(shuffled(i, 1000, 5)) for i in (0, 17, 999)] == [
        int(whole[i]) for i in (0, 17, 999)
    ]
    assert shuffled(np.arange(6).reshape(2, 3), 1000, 5).shape == (2, 3)


def test_keys_give_unrelated_orders() -> None:
    one, two = (shuffled(np.arange(10_000), 10_000, key) for key in (1, 2))
    assert (one == two).sum() < 20  # 1 expected
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.05
    assert abs(np.corrcoef(one, np.arange(10_000))[0, 1]) < 0.05


def test_every_place_of_a_small_set_is_reached_evenly() -> None:
    firsts = [int(shuffled(0, 5, derive_seed(key))) for key in range(2000)]
    counts = np.bincount(firsts, minlength=5)
    assert np.abs(counts - 400).max() < 90  # 5 standard deviations


def test_two_billion() -> None:
    size = 2_000_000_011
    positions = np.linspace(0, size - 1, 10_000).astype(np.int64)
    out = shuffled(positions, size, 3)
    assert len(np.unique(out)) == 10_000
    assert out.min() >= 0
    assert out.max() < size
    assert abs(out.mean() / size - 0.5) < 0.02


@pytest.mark.parametrize(("position", "size"), [(5, 5), (-1, 5), (0, 0)])
def test_positions_outside_are_refused(position: int, size: int) -> None:
    with pytest.raises(ValueError, match="range"):
        shuffled(position, size, 0)


def test_seeded_draws_leave_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda _: pytest.fail("seeds the GPUs"))
    torch.default_generator.manual_seed(5)
    before = torch.get_rng_state()
    drawn = []
    with suppress(ZeroDivisionError), seeded(3):
        drawn.append(torch.rand(4))
        raise ZeroDivisionError
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(drawn[0], torch.rand(4, generator=torch.Generator().manual_seed(3)))


def test_only_the_gpu_that_is_named_is_seeded_and_it_is_restored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gpus = [torch.Generator().manual_seed(number) for number in range(2)]
    before = [gpu.get_state() for gpu in gpus]
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(torch.cuda, "default_generators", gpus)
    with seeded(3, torch.device("cuda", 1)):
        assert [gpu.initial_seed() for gpu in gpus] == [0, 3]
    assert all(torch.equal(gpu.get_state(), was) for gpu, was in zip(gpus, before, strict=True))


def test_the_global_generators_are_seeded_in_one_place() -> None:
    """`torch.manual_seed` seeds every accelerator, and nothing puts their states back."""
    package = Path(openeupe.__file__).parent
    found = {
        file.relative_to(package).as_posix()
        for file in package.rglob("*.py")
        if re.search(r"torch\.(cuda\.)?manual_seed\(|random\.seed\(", file.read_text())
    }
    assert found == {"deployment/worker.py"}  # a process of its own, which then ends
