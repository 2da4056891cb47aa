import pytest
import torch
import torch.nn.functional as F

from openeupe.evaluate.probe import LinearProbe, fit_cached


def problem() -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens of which one hidden direction says the class of each patch."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(24, 8, 4, 4, generator=generator)
    target = (tokens[:, 2] - tokens[:, 5] > 0).long()
    return (tokens * 3 + 7).half(), target


def fit(seed: int = 0, steps: int = 200, device: str = "cpu") -> LinearProbe:
    tokens, target = problem()
    return fit_cached(
        tokens,
        lambda logits, chosen: F.cross_entropy(logits, target[chosen]),
        outputs=2,
        steps=steps,
        batch_size=8,
        lr=1e-2,
        weight_decay=1e-3,
        warmup_steps=5,
        seed=seed,
        device=device,
    )


def test_a_linear_problem_is_solved() -> None:
    tokens, target = problem()
    with torch.no_grad():
        predicted = fit()(tokens.float()).argmax(dim=1)
    assert (predicted == target).float().mean() > 0.95


def test_the_seed_says_everything() -> None:
    before = torch.get_rng_state()
    a, b, c = fit(0, 5), fit(0, 5), fit(1, 5)
    assert torch.equal(a.linear.weight, b.linear.weight)
    assert not torch.equal(a.linear.weight, c.linear.weight)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_generator_of_a_gpu_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeding seeds every device, and a probe's dropout draws on its own."""
    given: list[list[torch.device]] = []

    def fork_rng(devices: list[torch.device]) -> None:
        given.append(devices)
        raise InterruptedError

    monkeypatch.setattr(torch.random, "fork_rng", fork_rng)
    with pytest.raises(InterruptedError):
        fit(device="cuda")
    assert given == [[torch.device("cuda")]]


def test_the_probe_is_the_papers() -> None:
    torch.manual_seed(0)
    probe = LinearProbe(512, 40, dropout=0.1)
    assert abs(probe.linear.weight.std().item() - 0.01) < 5e-4
    assert not probe.linear.bias.any()
    assert not probe.eval()(torch.zeros(2, 512, 3, 5)).any()
    assert [type(m).__name__ for m in probe.children()] == ["Dropout2d", "BatchNorm2d", "Conv2d"]
