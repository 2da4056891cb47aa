"""Any timm vision transformer or convolutional network, as an encoder."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers import ClNormMlpClassifierHead, NormMlpClassifierHead
from torch import Tensor, nn

from openeupe.encoders.arguments import RESERVED, check_size
from openeupe.encoders.encoder import Arguments, Encoder, Tokens
from openeupe.encoders.meta import on_meta
from openeupe.encoders.weights import first_line, observed_loads, read_weights
from openeupe.errors import InputError

# Arguments that let a network take other sizes; tried in turn, since timm has no common way.
Trunk = Any  # timm's classes share no typed base
_ANY_SIZE: tuple[Arguments, ...] = ({"dynamic_img_size": True}, {"strict_img_size": False}, {})

# Parts that timm leaves out where a network is used without them.
_LEFT_OUT = ("attn_pool.", "AuxLogits.")


class TimmEncoder(Encoder):
    """A timm network without its classifier.

    Patch tokens are the last feature map after the final norm, prefix tokens dropped. If the
    norm follows the pooling (ConvNeXt, BEiT), it is applied to the pooled token and to every
    patch, as the released EUPE code does for ConvNeXt.

    Args:
        timm_name: architecture, with or without a weights tag ("convnext_tiny.fb_in1k").
        pretrained: False, True (timm's own download), or a weights file (.safetensors or a
            .pt/.pth that holds tensors only); released EUPE, DINOv3 and PE files are understood.
        class_token: token of the whole image:
            "own" the network's class token; "pooled" the input of its classifier (average or
            attention pool, and the layers between pool and classifier); "projected" that, through
            the head kept from pretraining (PEcore: the CLIP space); "mean" the mean patch token.
            By default "own" where the network was trained to use one, else "pooled".
        resolution: native resolution in pixels; default: timm's.
        name: in errors and configs; default: `timm_name`.
        timm_args: settings of the timm constructor (depth, embed_dim, drop_path_rate, ...).

    Raises:
        InputError: for arguments that timm does not take and weights that cannot be loaded.
    """

    def __init__(
        self,
        timm_name: str,
        *,
        pretrained: bool | str | Path = False,
        class_token: str | None = None,
        resolution: int | None = None,
        name: str | None = None,
        **timm_args: Any,
    ) -> None:
        name = name or timm_name
        trunk = _build(timm_name, name, pretrained, class_token == "projected", timm_args)
        config = trunk.pretrained_cfg
        recorded = dict(timm_args)
        if class_token is not None:
            recorded["class_token"] = class_token
        if resolution is not None:
            recorded["resolution"] = resolution
        class_token = _choose_class_token(trunk, class_token, name)
        stride = _stride(trunk, name)
        widths = {
            "pooled": getattr(trunk, "head_hidden_size", None) or trunk.num_features,
            "projected": trunk.num_classes,
        }
        super().__init__(
            name=name,
            args=recorded,
            cls_dim=widths.get(class_token, trunk.num_features),
            patch_dim=trunk.num_features,
            patch_size=stride,
            resolution=resolution or _native_resolution(trunk, timm_args, stride),
            mean=tuple(config["mean"]),
            std=tuple(config["std"]),
        )
        self.class_token = class_token
        self.trunk: Trunk = trunk
        if pretrained:
            self.eval()

    def tokens(self, pixels: Tensor) -> Tokens:
        height, width = pixels.shape[-2:]
        # Convolutions run faster channels last; the weights stay contiguous, as FSDP demands.
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        try:
            features = self.trunk.forward_features(pixels)
        except (AssertionError, IndexError, RuntimeError) as error:
            native = height == width == self.resolution
            if native or isinstance(error, torch.OutOfMemoryError):
                raise
            raise InputError(
                f"{self.name} cannot encode {height}x{width} pixels ({first_line(error)}): use "
                f"{self.resolution}, or give img_size when creating it"
            ) from error
        if not isinstance(features, Tensor):
            raise InputError(f"{self.name} gives no single feature map: it cannot be an encoder")
        norm = norm_behind_pool(self.trunk)
        normed = features if norm is None else norm(features)
        patches = self.grid(normed, height, width)
        if self.class_token == "own":
            return Tokens(normed[:, 0], patches)
        if self.class_token == "mean":
            return Tokens(patches.mean((2, 3)), patches)
        pooled = self.class_token == "pooled"
        return Tokens(self.trunk.forward_head(features, pre_logits=pooled), patches)

    def grid(self, features: Tensor, height: int, width: int) -> Tensor:
        """Patch tokens as `[B, Dp, h, w]`, from any layout of the trunk."""
        grid = (height // self.patch_size, width // self.patch_size)
        if features.ndim == 4:
            channels_first = features.shape[1] == self.patch_dim
            patches = features if channels_first else features.permute(0, 3, 1, 2)
            if patches.shape[-2:] != grid:  # convolutions without padding (inception)
                raise InputError(
                    f"{self.name} gives {patches.shape[-2]}x{patches.shape[-1]} patch tokens of "
                    f"{height}x{width} pixels, not {grid[0]}x{grid[1]}: this timm architecture "
                    "cannot be an encoder"
                )
            return patches
        prefix = getattr(self.trunk, "num_prefix_tokens", 0)
        if features.shape[1] != prefix + grid[0] * grid[1]:
            raise InputError(
                f"{self.name}: {features.shape[1]} tokens do not make a {grid[0]}x{grid[1]} grid "
                f"behind {prefix} prefix tokens: this timm architecture cannot be an encoder"
            )
        return features[:, prefix:].transpose(1, 2).unflatten(2, grid)


def _build(
    timm_name: str,
    name: str,
    pretrained: bool | str | Path,
    keep_head: bool,
    timm_args: Arguments,
) -> Trunk:
    """Build the trunk; arguments are checked before weights are fetched."""
    if reserved := sorted(RESERVED & set(timm_args)):
        raise InputError(f"{name}: {reserved[0]} cannot be set here: leave it out")
    if not keep_head:
        timm_args = {"num_classes": 0, **timm_args}
    if len(timm_args) > ("num_classes" in timm_args):
        check_size(name, lambda: _construct(timm_name, name, timm_args)[0])
    # On the meta device a wrong argument costs no memory and no download.
    with on_meta() if pretrained else nullcontext():
        trunk, any_size = _construct(timm_name, name, timm_args)
    if pretrained:
        trunk = _with_weights(timm_name, name, pretrained, type(trunk), {**any_size, **timm_args})
    if not hasattr(trunk, "forward_head") or not isinstance(trunk.num_features, int):
        raise InputError(f"{name}: this timm architecture cannot be an encoder: choose another")
    return trunk


def _construct(timm_name: str, name: str, timm_args: Arguments) -> tuple[Trunk, Arguments]:
    for any_size in _ANY_SIZE:
        try:
            return timm.create_model(timm_name, **{**any_size, **timm_args}), any_size
        except TypeError as error:  # an argument that this architecture does not take
            if any_size and any(word in str(error) for word in any_size):
                continue
            raise InputError(
                f"{name} cannot be made so ({first_line(error)}): correct the arguments"
            ) from error
        except Exception as error:  # timm's constructors meet what they do not check
            raise InputError(
                f"{name} cannot be made so ({first_line(error)}): correct the arguments"
            ) from error
    raise AssertionError("the last attempt adds no argument")


def _with_weights(
    timm_name: str,
    name: str,
    pretrained: bool | str | Path,
    kind: type[nn.Module],
    timm_args: Arguments,
) -> Trunk:
    source: Arguments = {}
    origin = "its published weights"
    if not isinstance(pretrained, bool):
        origin = f"the weights file {pretrained}"
        weights = read_weights(Path(pretrained), name)
        if not weights:
            raise InputError(f"{name}: {pretrained} holds no weights: give another file")
        source = {"pretrained_cfg_overlay": {"label_offset": 0, "state_dict": weights}}
    try:
        with observed_loads(kind) as loads:
            trunk: Trunk = timm.create_model(timm_name, pretrained=True, **source, **timm_args)
        wrong = next((text for load in loads if (text := _misfit(trunk, *load))), None)
        if wrong or (source and not loads):
            raise ValueError(wrong or "timm did not read it")
    except Exception as error:  # hub clients raise errors of their network library
        raise InputError(
            f"{name}: {origin} cannot be loaded ({first_line(error)}): connect to the hub once, "
            f"give a fitting weights file as pretrained, or set pretrained=False"
        ) from error
    trunk.pretrained_cfg.pop("state_dict", None)  # else the config holds the weights a second time
    return trunk


def _misfit(trunk: Trunk, missing: list[str], unexpected: list[str]) -> str | None:
    """Report what is wrong with weights that were not loaded strictly. None if they fit.

    Every tensor of the trunk must exist, and no other one but the classifier's.
    """
    if missing:
        return f"it lacks {_counted(missing)}"
    classifier = trunk.pretrained_cfg.get("classifier") or ()
    names = (classifier,) if isinstance(classifier, str) else classifier
    roots = {name.split(".")[0] for name in names}
    foreign = [
        key
        for key in unexpected
        if not key.startswith(_LEFT_OUT) and (key.split(".")[0] not in roots or "norm" in key)
    ]
    return f"it has {_counted(foreign)}, that the network does not know" if foreign else None


def _counted(keys: list[str]) -> str:
    return f"{len(keys)} tensor{'s' * (len(keys) > 1)}, such as {keys[0]}"


def _choose_class_token(trunk: Trunk, choice: str | None, name: str) -> str:
    """Check or choose the class token, and remove an unused pool."""
    own = isinstance(getattr(trunk, "cls_token", None), nn.Parameter)
    attention_pool = getattr(trunk, "attn_pool", None) is not None
    possible = ["pooled", "mean"] + ["own"] * own
    possible += ["projected"] * _keeps_head(trunk)
    if choice is None:
        plain = own and not attention_pool and norm_behind_pool(trunk) is None
        choice = "own" if plain else "pooled"
    if choice not in possible:
        raise InputError(
            f"{name} has no class token {choice!r}: use one of {', '.join(sorted(possible))}"
        )
    if attention_pool and choice in ("own", "mean"):
        trunk.attn_pool = None
    return choice


def _keeps_head(trunk: Trunk) -> bool:
    try:
        return not isinstance(trunk.get_classifier(), nn.Identity)
    except AttributeError:  # some networks look for it in the identity that took its place
        return False


def norm_behind_pool(trunk: Trunk) -> nn.Module | None:
    """The final norm, if only the pooled token passes it."""
    head = getattr(trunk, "head", None)
    if isinstance(head, (NormMlpClassifierHead, ClNormMlpClassifierHead)):
        norm = head.norm
    elif isinstance(getattr(trunk, "norm", None), nn.Identity):
        norm = getattr(trunk, "fc_norm", None)
    else:
        norm = None
    return None if isinstance(norm, nn.Identity) else norm


def _stride(trunk: Trunk, name: str) -> int:
    """Pixels between neighbouring positions of the last feature map."""
    try:
        return int(trunk.feature_info[-1]["reduction"])
    except (AttributeError, TypeError, IndexError, KeyError) as error:
        raise InputError(f"{name}: timm does not report its stride: choose another") from error


def _native_resolution(trunk: Trunk, timm_args: Arguments, stride: int) -> int:
    """timm's resolution, or the nearest one that the stride divides."""
    resolution = timm_args.get("img_size") or trunk.pretrained_cfg["input_size"][-1]
    resolution = int(resolution[-1] if isinstance(resolution, (tuple, list)) else resolution)
    return max(round(resolution / stride), 1) * stride
