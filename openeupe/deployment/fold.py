"""Fold constant operations into the weights, exact to rounding."""

from __future__ import annotations

from typing import Any

import torch
from timm.layers import Conv2dSame
from timm.layers.pos_embed_sincos import RotaryEmbeddingDinoV3
from torch import Tensor, nn

from openeupe.encoders import Encoder, evaluating


def fold_layer_scales(network: nn.Module) -> int:
    """Multiply layer scales into the linear layer before them, in place.

    Knows timm's transformer blocks (`ls1`/`ls2` and `gamma_1`/`gamma_2` behind attention and MLP)
    and ConvNeXt's (`gamma` behind the MLP). Returns the number of folded scales.
    """
    folded = 0
    for block in network.modules():
        attention, mlp = getattr(block, "attn", None), getattr(block, "mlp", None)
        places: list[tuple[str, Any, Any]] = [
            ("ls1", attention, "proj"),
            ("ls2", mlp, "fc2"),
            ("gamma_1", attention, "proj"),
            ("gamma_2", mlp, "fc2"),
            ("gamma", mlp, "fc2"),
        ]
        for name, inner, last in places:
            scale, layer = getattr(block, name, None), getattr(inner, last, None)
            gamma = getattr(scale, "gamma", None) if isinstance(scale, nn.Module) else scale
            if not isinstance(gamma, Tensor) or not isinstance(layer, nn.Linear | nn.Conv2d):
                continue
            layer.weight.data.mul_(gamma.view(-1, *[1] * (layer.weight.ndim - 1)))
            if layer.bias is not None:
                layer.bias.data.mul_(gamma)
            setattr(block, name, nn.Identity() if name.startswith("ls") else None)
            folded += 1
    return folded


def pixel_layer(encoder: Encoder) -> nn.Conv2d | None:
    """The only convolution on the pixels, if there is exactly one."""
    seen: list[nn.Conv2d] = []
    shape = (1, 3, encoder.resolution, encoder.resolution)
    pixels = torch.rand(shape, generator=torch.Generator().manual_seed(0))

    def look(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        if given[0].shape == pixels.shape and torch.equal(given[0], pixels):
            seen.append(module)  # type: ignore[arg-type]

    hooks = [
        module.register_forward_pre_hook(look)
        for module in encoder.modules()
        if isinstance(module, nn.Conv2d)
    ]
    try:
        with evaluating(encoder), torch.no_grad():
            encoder.tokens(pixels)
    finally:
        for hook in hooks:
            hook.remove()
    # Subclasses that standardize their weights cannot be scaled.
    plain = len(seen) == 1 and type(seen[0]) in (nn.Conv2d, Conv2dSame) and seen[0].groups == 1
    return seen[0] if plain else None


def fold_normalization(layer: nn.Conv2d, mean: Tensor, std: Tensor) -> Tensor | None:
    """Make a convolution of `(x - mean) / std` one of `x`, in place. Constants are `[1, 3, 1, 1]`.

    Returns what must still be subtracted from `x`: the mean if the convolution pads (its zeros mean
    the mean colour, which a bias cannot express), else None.
    """
    weight = layer.weight.data.div_(std)
    if type(layer) is not nn.Conv2d or layer.padding not in (0, (0, 0), "valid"):
        return mean
    shift = (weight.double() * mean.double()).sum((1, 2, 3)).to(weight)
    if layer.bias is None:
        layer.bias = nn.Parameter(-shift, requires_grad=False)
    else:
        layer.bias.data.sub_(shift)
    return None


class SymbolicRope(nn.Module):
    """DINOv3's rotary embedding for dynamic grid sizes.

    timm turns the sizes into Python floats, which an exporter freezes at those of its example: the
    file then runs at any size and is wrong at all others.
    """

    def __init__(self, rope: RotaryEmbeddingDinoV3) -> None:
        super().__init__()
        self.rope = rope

    def get_embed(self, shape: tuple[int, int]) -> Tensor:
        """`[h * w, 2 * dim]`: sines and cosines, as timm's method."""
        rope = self.rope
        height, width = shape
        down = (torch.arange(height) + (0.5 + rope.grid_offset)) / height
        across = (torch.arange(width) + (0.5 + rope.grid_offset)) / width
        rows = down[:, None].expand(height, width)
        columns = across[None, :].expand(height, width)
        coords = torch.stack([rows, columns], dim=-1).flatten(0, 1)
        sin, cos = rope._get_pos_embed_from_coords(2 * coords - 1)
        return torch.cat([sin, cos], dim=-1)


def free_rope(network: nn.Module) -> None:
    """Replace every DINOv3 rotary embedding by `SymbolicRope`, in place."""
    for module in list(network.modules()):
        rope = getattr(module, "rope", None)
        if not isinstance(rope, RotaryEmbeddingDinoV3):
            continue
        if rope.grid_indexing == "ij" and rope.normalize_coords == "separate":
            module.rope = SymbolicRope(rope)


def fold_constants(graph: torch.fx.GraphModule) -> None:
    """Precompute everything that does not depend on the input, in place."""
    values: dict[torch.fx.Node, Any] = {}
    for node in list(graph.graph.nodes):
        if node.op == "get_attr":
            value: Any = graph
            for part in node.target.split("."):
                value = getattr(value, part)
            values[node] = value
        elif node.op == "call_function" and all(n in values for n in node.all_input_nodes):
            args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
            result = node.target(*args, **kwargs)
            if node.is_impure():  # an assertion, which has just held
                graph.graph.erase_node(node)
            else:
                values[node] = result
    for number, (node, value) in enumerate(values.items()):
        used = any(user not in values for user in node.users)
        if node.op == "get_attr" or not used or not isinstance(value, Tensor):
            continue
        name = f"folded_{number}"
        graph.register_buffer(name, value.detach().clone(memory_format=torch.contiguous_format))
        with graph.graph.inserting_before(node):
            node.replace_all_uses_with(graph.graph.get_attr(name))
    graph.graph.eliminate_dead_code()
    graph.delete_all_unused_submodules()
    graph.recompile()
