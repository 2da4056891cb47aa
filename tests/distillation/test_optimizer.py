from __future__ import annotations

import pytest
import torch
from torch import nn

from openeupe.distillation.optimizer import (
    OptimizerConfig,
    build_optimizers,
    learning_rate,
    peak_lr,
    set_lr,
)
from openeupe.encoders import create
from openeupe.encoders.meta import on_meta


def test_warmup_then_cosine_to_the_end() -> None:
    config = OptimizerConfig(lr=1.0, warmup_steps=10, final_lr=0.1)
    rates = [learning_rate(step, 110, 8, config) for step in range(111)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[10] == pytest.approx(1.0)
    assert rates[60] == pytest.approx(0.55)  # half of the cosine
    assert rates[110] == pytest.approx(0.1)
    assert rates[10:] == sorted(rates[10:], reverse=True)


@pytest.mark.parametrize(
    ("rule", "peak"),
    # sqrt_wrt_1024 at the paper's batch gives the 2.26e-4 of paper-facts 6.7
    [("none", 2e-5), ("sqrt_wrt_1024", 2.2627e-4), ("linear_wrt_256", 6.4e-4)],
)
def test_scaling_rules(rule: str, peak: float) -> None:
    config = OptimizerConfig(lr=2e-5, lr_scaling=rule)  # type: ignore[arg-type]
    assert peak_lr(config, 8192) == pytest.approx(peak, rel=1e-3)


def test_only_matrices_decay() -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3))
    module[0].bias.requires_grad_(False)
    config = OptimizerConfig(lr=1.0, weight_decay=0.5)
    (optimizer,) = build_optimizers(module[0], module[1], config, 8)
    decay = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert decay == {id(module[0].weight): 0.5, id(module[1].weight): 0, id(module[1].bias): 0}
    assert isinstance(optimizer, torch.optim.AdamW)


@pytest.mark.parametrize(("share", "moved"), [(1.0, 0.1), (0.25, 0.025), (0.0, 0.0)])
def test_a_backbone_learns_at_its_share_of_the_heads_rate(share: float, moved: float) -> None:
    network, heads = nn.Linear(3, 3), nn.Linear(3, 3)
    before = [p.detach().clone() for p in (network.weight, heads.bias)]
    config = OptimizerConfig(lr=1.0, weight_decay=0, backbone_lr=share)
    (optimizer,) = build_optimizers(network, heads, config, 8)
    set_lr(optimizer, 0.1)
    for p in (*network.parameters(), *heads.parameters()):
        p.grad = torch.ones_like(p)
    optimizer.step()  # AdamW's first step is as long as the learning rate
    steps = [b - p for b, p in zip(before, (network.weight, heads.bias), strict=True)]
    torch.testing.assert_close(steps[0], torch.full((3, 3), moved))
    torch.testing.assert_close(steps[1], torch.full((3,), 0.1))


@pytest.mark.parametrize("name", ["test_vit", "fastvit_t8", "test_nfnet"])
def test_tokens_embeddings_and_scales_do_not_decay_whatever_their_shape(name: str) -> None:
    with on_meta():
        network = create(name)
    config = OptimizerConfig(lr=1.0, weight_decay=0.5)
    (optimizer,) = build_optimizers(network, nn.Linear(3, 3), config, 8)
    decay = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    kinds = ("cls_token", "pos_embed", "gamma", "gain", "bias")
    free = {k for k, p in network.named_parameters() if decay[id(p)] == 0}
    assert free >= {k for k, _ in network.named_parameters() if k.endswith(kinds)}
    kernels = {k for k, p in network.named_parameters() if p.ndim >= 2 and k.endswith(".weight")}
    assert kernels
    assert not free & kernels
