"""Expert teachers whose weights a package registry carries: semantics, boundaries and text.

Each is a small convolutional network of another domain, so that distillation from several experts
can be run and tested anywhere; they give patch tokens 16 pixels apart. A fine-tuned DINOv2
is the one transformer.
"""

from __future__ import annotations

from collections import OrderedDict

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.vgg import cfgs, make_layers

from openeupe.encoders.backbone import Trunk
from openeupe.encoders.dinov2_focus_weights import dinov2_focus_weights
from openeupe.encoders.encoder import Encoder, Tokens
from openeupe.encoders.expert_weights import craft_weights, hed_weights, lite0_weights
from openeupe.errors import InputError

# The program that trained EfficientNet-Lite feeds (value - 127) / 128.
_LITE = {"mean": (127 / 255,) * 3, "std": (128 / 255,) * 3}
# Caffe's constants, given in RGB order: HED takes 0..255 with the mean subtracted.
_CAFFE = {"mean": (122.67892 / 255, 116.66877 / 255, 104.00699 / 255), "std": (1 / 255,) * 3}
_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


class EfficientNetLite0(Encoder):
    """Semantic expert: EfficientNet-Lite0, an ImageNet-1k classifier (Apache-2.0, 3.4 M).

    Class token: the pooled 1280-d output of the convolutional head, which the classifier sees.

    Args:
        pretrained: fetch the weights and set eval mode; else random, ready to be trained.
        patches: "16" the stride-16 stage (112-d), "32" the last stage (320-d) bilinearly
            upsampled to stride 16, or "16+32" both, concatenated: where things are and what.
            "8+16+32" adds the stride-8 stage (40-d), average-pooled: edges and strokes.
    """

    def __init__(self, *, pretrained: bool = False, patches: str = "16+32") -> None:
        widths = {"16": 112, "32": 320, "16+32": 432, "8+16+32": 472}
        width = _width("efficientnet_lite0", patches, widths)
        super().__init__(
            name="efficientnet_lite0",
            args={"patches": patches},
            cls_dim=1280,
            patch_dim=width,
            patch_size=16,
            resolution=224,
            **_LITE,
        )
        self.patches = patches
        # The tf_ variant pads as TensorFlow does ("same"), which these weights expect.
        self.trunk: Trunk = timm.create_model("tf_efficientnet_lite0", num_classes=0)
        if pretrained:
            weights = lite0_weights()
            self.trunk.load_state_dict({key: weights[key] for key in self.trunk.state_dict()})
            self.eval()

    def tokens(self, pixels: Tensor) -> Tokens:
        trunk = self.trunk
        x = trunk.bn1(trunk.conv_stem(pixels.contiguous(memory_format=torch.channels_last)))
        early = trunk.blocks[:3](x)
        middle = trunk.blocks[3:5](early)
        last = trunk.blocks[5:](middle)
        cls = trunk.bn2(trunk.conv_head(last)).mean((2, 3))
        maps = [F.avg_pool2d(early, 2)] if "8" in self.patches else []
        if "16" in self.patches:
            maps.append(middle)
        if "32" in self.patches:
            maps.append(F.interpolate(last, size=middle.shape[-2:], mode="bilinear"))
        return Tokens(cls, torch.cat(maps, 1))


def imagenet_classifier() -> nn.Linear:
    """The ImageNet-1k classifier of EfficientNet-Lite0: class token `[B, 1280]` -> logits."""
    weights = lite0_weights()
    linear = nn.Linear(1280, 1000)
    linear.load_state_dict({key: weights[f"classifier.{key}"] for key in ("weight", "bias")})
    return linear.eval().requires_grad_(False)


class HedEncoder(Encoder):
    """Boundary expert: HED, a VGG16 trained on BSDS500 (arXiv 1504.06375; MIT, 14.7 M).

    Class token: the mean patch token, as the network has none.

    Args:
        pretrained: fetch the weights and set eval mode; else random, ready to be trained.
        patches: "conv5" the last map (512-d, stride 16), "conv4" the one before, average-pooled
            to that stride (512-d), or "conv5+conv4" both, concatenated.
    """

    def __init__(self, *, pretrained: bool = False, patches: str = "conv5+conv4") -> None:
        width = _width("hed", patches, {"conv5": 512, "conv4": 512, "conv5+conv4": 1024})
        super().__init__(
            name="hed",
            args={"patches": patches},
            cls_dim=width,
            patch_dim=width,
            patch_size=16,
            resolution=480,
            **_CAFFE,
        )
        self.patches = patches
        self.blocks = nn.ModuleList(_split(make_layers(cfgs["D"]), (4, 9, 16, 23, 30)))
        if pretrained:
            self.load_state_dict(hed_weights())
            self.eval()

    def tokens(self, pixels: Tensor) -> Tokens:
        *_, conv4, conv5 = self.stages(pixels)
        maps = [conv5] if "conv5" in self.patches else []
        if "conv4" in self.patches:
            maps.append(F.avg_pool2d(conv4, 2))
        patches = torch.cat(maps, 1)
        return Tokens(patches.mean((2, 3)), patches)

    def stages(self, pixels: Tensor) -> list[Tensor]:
        """The maps of all five blocks, finest first, of normalized pixels."""
        x = pixels.contiguous(memory_format=torch.channels_last)
        stages = []
        for block in self.blocks:
            x = block(x)
            stages.append(x)
        return stages


class CraftEncoder(Encoder):
    """Text expert: CRAFT, which finds characters (arXiv 1904.01941; Apache-2.0/MIT, 18.1 M).

    Class token: the mean patch token, as the network has none.

    Args:
        pretrained: fetch the weights and set eval mode; else random, ready to be trained.
        patches: "fc7" the last map of the VGG16 trunk (1024-d), or "fc7+relu5" with the one below
            it (512-d), concatenated.
    """

    def __init__(self, *, pretrained: bool = False, patches: str = "fc7+relu5") -> None:
        width = _width("craft", patches, {"fc7": 1024, "fc7+relu5": 1536})
        super().__init__(
            name="craft",
            args={"patches": patches},
            cls_dim=width,
            patch_dim=width,
            patch_size=16,
            resolution=768,
            **_IMAGENET,
        )
        self.patches = patches
        # Cut before the ReLUs that follow a tapped map: the last one is used without its ReLU.
        layers = make_layers(cfgs["D"], batch_norm=True)
        self.slices = nn.ModuleList(_split(layers, (12, 19, 29, 39)))
        self.fc = nn.Sequential(
            nn.MaxPool2d(3, 1, 1),
            nn.Conv2d(512, 1024, 3, padding=6, dilation=6),
            nn.Conv2d(1024, 1024, 1),
        )
        if pretrained:
            self.load_state_dict(craft_weights())
            self.eval()

    def tokens(self, pixels: Tensor) -> Tokens:
        relu5 = self.stages(pixels)[-1]
        patches = self.fc(relu5)
        if self.patches == "fc7+relu5":
            patches = torch.cat([patches, relu5], 1)
        return Tokens(patches.mean((2, 3)), patches)

    def stages(self, pixels: Tensor) -> list[Tensor]:
        """The tapped maps of the trunk, finest first, of normalized pixels."""
        x = pixels.contiguous(memory_format=torch.channels_last)
        stages = []
        for part in self.slices:
            x = part(x)
            stages.append(x)
        return stages


class Dinov2SmallFocus(Encoder):
    """DINOv2 ViT-S/14 fine-tuned for saliency (MIT/Apache-2.0, 22.1 M): not DINOv2 as published.

    The one pretrained transformer of the package registry. Fine-tuning at 224 px cost it much of
    DINOv2's accuracy (its kNN accuracy is far below EfficientNet-Lite0's): use it to
    test real ViT weights, never as a result for DINOv2. Class token: its own.
    """

    def __init__(self, *, pretrained: bool = False) -> None:
        super().__init__(
            name="dinov2_s_focus",
            args={},
            cls_dim=384,
            patch_dim=384,
            patch_size=14,
            resolution=224,
            **_IMAGENET,
        )
        self.trunk: Trunk = timm.create_model(
            "vit_small_patch14_dinov2", num_classes=0, dynamic_img_size=True
        )
        if pretrained:
            self.trunk.load_state_dict(dinov2_focus_weights())
            self.eval()

    def tokens(self, pixels: Tensor) -> Tokens:
        trunk = self.trunk
        x = trunk.patch_embed(pixels)  # [B, h, w, D]
        grid = x.shape[1:3]
        # As DINOv2 does, without antialiasing: timm's own resizing differs when the grid shrinks.
        places = trunk.pos_embed[:, 1:].unflatten(1, (37, 37)).permute(0, 3, 1, 2)
        places = F.interpolate(places, size=grid, mode="bicubic").permute(0, 2, 3, 1)
        cls = (trunk.cls_token + trunk.pos_embed[:, :1]).expand(len(x), -1, -1)
        x = trunk.norm(trunk.blocks(torch.cat([cls, (x + places).flatten(1, 2)], 1)))
        return Tokens(x[:, 0], x[:, 1:].transpose(1, 2).unflatten(2, grid))


EXPERTS: dict[str, type[Encoder]] = {
    "efficientnet_lite0": EfficientNetLite0,
    "hed": HedEncoder,
    "craft": CraftEncoder,
    "dinov2_s_focus": Dinov2SmallFocus,
}


def _split(layers: nn.Sequential, ends: tuple[int, ...]) -> list[nn.Sequential]:
    """Split a network; layers keep their numbers, which the weight files use."""
    parts, start = [], 0
    for end in ends:
        numbered = OrderedDict((str(i), layers[i]) for i in range(start, end))
        for layer in numbered.values():
            if isinstance(layer, nn.ReLU):
                layer.inplace = False  # a tapped map must not be changed by the next piece
        parts.append(nn.Sequential(numbered))
        start = end
    return parts


def _width(name: str, patches: str, widths: dict[str, int]) -> int:
    if patches not in widths:
        raise InputError(f"{name} has no patches {patches!r}: use one of {', '.join(widths)}")
    return widths[patches]
