from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from openeupe.distillation.muon import Muon, matrix_parts, orthogonalize
from openeupe.distillation.optimizer import MuonConfig, OptimizerConfig, build_optimizers, set_lr
from openeupe.encoders import create


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", [(2, 16, 16), (1, 8, 72), (3, 40, 8)])
def test_singular_values_become_about_one_and_vectors_stay(shape: tuple[int, ...]) -> None:
    matrices = draw(*shape) * 1e-3
    found = orthogonalize(matrices)
    assert found.shape == matrices.shape
    sizes = torch.linalg.svdvals(found)
    assert 0.6 < sizes.min() < sizes.max() < 1.25
    # The same left and right singular vectors: their products with the input are diagonal.
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    inner = left.mT @ found @ right.mT
    off = inner - torch.diag_embed(inner.diagonal(dim1=-2, dim2=-1))
    assert off.abs().max() < 2e-3


def test_both_ways_to_compute_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    from openeupe.distillation import muon

    wide = draw(2, 12, 108)
    by_gram = orthogonalize(wide)
    monkeypatch.setattr(muon, "_by_gram", muon._directly)
    torch.testing.assert_close(by_gram, orthogonalize(wide), rtol=1e-3, atol=1e-4)


def test_a_gradient_of_zeros_moves_nothing() -> None:
    assert torch.equal(orthogonalize(torch.zeros(1, 4, 8)), torch.zeros(1, 4, 8))


def test_queries_keys_and_values_move_as_three_matrices() -> None:
    gradient = draw(24, 8)
    joint = nn.Parameter(torch.zeros(24, 8))
    apart = [nn.Parameter(torch.zeros(8, 8)) for _ in range(3)]
    joint.grad = gradient
    for one, some in zip(apart, gradient.chunk(3), strict=True):
        one.grad = some.clone()
    Muon([{"params": [joint], "parts": 3}], lr=0.1).step()
    Muon([{"params": apart}], lr=0.1).step()
    torch.testing.assert_close(joint, torch.cat([one.detach() for one in apart]))


@pytest.mark.parametrize("name", ["test_vit", "test_efficientnet", "mobilenetv3_small_050"])
def test_matrices_and_kernels_are_muons_the_rest_is_adamws(name: str) -> None:
    with torch.device("meta"):
        network = create(name)
    heads = nn.Linear(8, 8)
    config = OptimizerConfig(lr=1.0, weight_decay=0.5, muon=MuonConfig(heads=False))
    adamw, muon = build_optimizers(network, heads, config, 8)
    owner = {
        id(p): kind
        for kind, optimizer in (("adamw", adamw), ("muon", muon))
        for group in optimizer.param_groups
        for p in group["params"]
    }
    named = dict(network.named_parameters())
    assert len(owner) == len(named) + 2
    assert {owner[id(p)] for p in heads.parameters()} == {"adamw"}
    muons = {k for k, p in named.items() if owner[id(p)] == "muon"}
    kernels = {
        k
        for k, p in named.items()
        if p.ndim >= 2 and k.endswith("weight") and not (p.ndim == 4 and p.shape[1] == 1)
    }
    assert muons
    assert muons <= kernels
    assert all(min(named[k].shape[0], named[k][0].numel()) < 4 for k in kernels - muons)
    if name == "test_vit":
        qkv = next(k for k in muons if k.endswith("qkv.weight"))
        assert matrix_parts(qkv, named[qkv], network) == 3


def test_the_rate_is_the_share_of_the_peak_that_adamw_has() -> None:
    network, heads = nn.Linear(8, 8), nn.Linear(8, 8)
    config = OptimizerConfig(
        lr=0.5, lr_scaling="linear_wrt_256", backbone_lr=0.5, muon=MuonConfig(lr=0.02)
    )
    _, muon = build_optimizers(network, heads, config, batch_size=512)
    set_lr(muon, 0.25)  # a quarter of the peak, which is 0.5 * 512 / 256
    assert [g["lr"] for g in muon.param_groups] == pytest.approx([0.0025, 0.005])
    before = heads.weight.detach().clone()
    heads.weight.grad = draw(8, 8)
    muon.step()
    change = torch.linalg.svdvals((before - heads.weight).detach())
    assert 0.6 * 0.005 < change.min() < change.max() < 1.25 * 0.005


def test_without_muon_everything_is_adamws() -> None:
    optimizers = build_optimizers(nn.Linear(8, 8), nn.Linear(8, 8), OptimizerConfig(lr=1.0), 8)
    assert [type(o) for o in optimizers] == [torch.optim.AdamW]


def test_blocks_of_rows_move_as_matrices_of_their_own() -> None:
    gradient = draw(16, 4, 3, 3)
    whole = nn.Parameter(torch.zeros(16, 4, 3, 3))
    blocks = [nn.Parameter(torch.zeros(8, 4, 3, 3)) for _ in range(2)]
    whole.grad = gradient
    for one, some in zip(blocks, gradient.chunk(2), strict=True):
        one.grad = some.clone()
    Muon([{"params": [whole]}], lr=0.1, block_rows=8).step()
    Muon([{"params": blocks}], lr=0.1).step()
    # A block has half of the rows, and the learning rate is scaled by the whole matrix.
    joined = torch.cat([one.detach() for one in blocks])
    torch.testing.assert_close(whole.detach(), joined * 2**0.5)
    tall = nn.Parameter(torch.zeros(16, 8))  # not cut: its Gram matrix is of its columns
    tall.grad = draw(16, 8)
    other = nn.Parameter(torch.zeros(16, 8))
    other.grad = tall.grad.clone()
    Muon([{"params": [tall]}], lr=0.1, block_rows=4).step()
    Muon([{"params": [other]}], lr=0.1).step()
    assert torch.equal(tall, other)
