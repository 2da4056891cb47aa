from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from openeupe.encoders import Tokens
from openeupe.heads.fitting import augmented_batches, cached_batches, fit_head, orders
from openeupe.heads.linear import HeadSettings, LinearHead
from openeupe.heads.settings import FitSettings


def problem() -> tuple[Tensor, Tensor]:
    """Tokens of which one hidden direction says the class of each patch."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(24, 8, 4, 4, generator=generator)
    target = (tokens[:, 2] - tokens[:, 5] > 0).long()
    return (tokens * 3 + 7).half(), target


def fitted(seed: int = 0, steps: int = 200, device: str = "cpu") -> LinearHead:
    tokens, target = problem()
    settings = FitSettings(steps=steps, warmup_steps=5)
    return fit_head(
        lambda: LinearHead(HeadSettings(width=8), 2),
        cached_batches(tokens, (target,), settings, seed),
        lambda head, tokens, targets, _: F.cross_entropy(head(tokens), targets[0]),
        settings,
        seed=seed,
        device=device,
    )


def test_a_linear_problem_is_solved() -> None:
    tokens, target = problem()
    with torch.no_grad():
        predicted = fitted()(tokens.float()).argmax(dim=1)
    assert (predicted == target).float().mean() > 0.95


def test_the_seed_fixes_everything() -> None:
    before = torch.get_rng_state()
    a, b, c = fitted(0, 5), fitted(0, 5), fitted(1, 5)
    assert torch.equal(a.linear.weight, b.linear.weight)
    assert not torch.equal(a.linear.weight, c.linear.weight)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_generator_of_a_gpu_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A head's dropout draws on its own device."""
    given: list[torch.device] = []

    def seeded(_: int, device: torch.device) -> None:
        given.append(device)
        raise InterruptedError

    monkeypatch.setattr("openeupe.heads.fitting.seeded", seeded)
    with pytest.raises(InterruptedError):
        fitted(device="cuda")
    assert given == [torch.device("cuda")]


def test_settings_reach_the_optimizer(monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(FitSettings):
        def betas_at(self, step: int) -> tuple[float, float]:
            return step / 10, 0.5

        def clip_norm(self) -> float:
            return 1e-3

    settings = Own(steps=3, batch_size=4, weight_decay=0.25)
    seen, norms = [], []
    plain = torch.optim.AdamW.step

    def step(self: torch.optim.AdamW) -> None:
        (group,) = self.param_groups
        seen.append((group["lr"], group["betas"], group["weight_decay"]))
        gradients = torch.cat([p.grad.flatten() for p in group["params"]])
        norms.append(gradients.norm().item())
        plain(self)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    tokens, target = problem()
    fit_head(
        lambda: LinearHead(HeadSettings(width=8), 2),
        cached_batches(tokens, (target,), settings, 0),
        lambda head, tokens, targets, _: F.cross_entropy(head(tokens), targets[0]),
        settings,
        seed=0,
    )
    rates = list(settings.rates())
    assert seen == [(rates[k], (k / 10, 0.5), 0.25) for k in range(3)]
    assert max(norms) <= 1e-3 * (1 + 1e-5)


def test_batches_of_another_number_are_an_error() -> None:
    tokens, target = problem()
    short = cached_batches(tokens, (target,), FitSettings(steps=2), 0)
    with pytest.raises(ValueError, match="shorter"):
        fit_head(
            lambda: LinearHead(HeadSettings(width=8), 2),
            short,
            lambda head, tokens, targets, _: F.cross_entropy(head(tokens), targets[0]),
            FitSettings(steps=3),
            seed=0,
        )


def test_augmented_batches_do_not_depend_on_threads() -> None:
    def sample(index: int, random: np.random.Generator) -> tuple[Tensor, Tensor]:
        noise = random.integers(0, 256, (3, 8, 8), dtype=np.uint8)
        return torch.from_numpy(noise), torch.full((8, 8), index)

    def encode(pixels: Tensor) -> Tokens:
        return Tokens(pixels.float().mean((2, 3)), pixels.float())

    settings = FitSettings(steps=4, batch_size=3)
    one, two = (
        list(augmented_batches(6, sample, encode, workers, settings, 7)) for workers in (1, 5)
    )
    for (tokens, (labels,)), (other, (same,)) in zip(one, two, strict=True):
        assert tokens.shape == (3, 3, 8, 8)
        assert torch.equal(tokens, other)
        assert torch.equal(labels, same)
    seen = torch.cat([labels[:, 0, 0] for _, (labels,) in one]).tolist()
    assert sorted(seen[:6]) == sorted(seen[6:]) == list(range(6))  # every image once an epoch
    assert not torch.equal(one[0][0], next(augmented_batches(6, sample, encode, 1, settings, 8))[0])


def test_every_image_comes_before_any_comes_again() -> None:
    batches = list(orders(10, 4, 5, seed=0))
    assert [len(batch) for batch in batches] == [4] * 5
    order = [k for batch in batches for k in batch]
    assert sorted(order[:10]) == sorted(order[10:]) == list(range(10))
    assert order[:10] != order[10:]
