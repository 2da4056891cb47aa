"""Folders in the layout of transformers' DINOv3 classes, read and written without transformers.

Both layouts name the same tensors; only names differ, and that timm keeps query, key and value in
one matrix.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from timm.models.convnext import ConvNeXt
from timm.models.eva import Eva
from torch import Tensor

from openeupe.encoders.backbone import TimmEncoder
from openeupe.encoders.contract import Encoder
from openeupe.encoders.weights import load_strictly, read_weights
from openeupe.errors import InputError
from openeupe.files import read_mapping

# (timm's, transformers'), applied in this order, or backwards; of transformers 4, which 5 reads.
_VIT = (
    ("reg_token", "embeddings.register_tokens"),
    ("cls_token", "embeddings.cls_token"),
    ("patch_embed.proj.", "embeddings.patch_embeddings."),
    ("blocks.", "layer."),
    (".attn.proj.", ".attention.o_proj."),
    (".gamma_1", ".layer_scale1.lambda1"),
    (".gamma_2", ".layer_scale2.lambda1"),
    (".mlp.fc1_g.", ".mlp.gate_proj."),
    (".mlp.fc1.", ".mlp.up_proj."),
    (".mlp.fc2.", ".mlp.down_proj."),
)
_CONVNEXT = (
    ("stem.", "stages.0.downsample_layers."),
    (".downsample.", ".downsample_layers."),
    (".blocks.", ".layers."),
    (".conv_dw.", ".depthwise_conv."),
    (".mlp.fc1.", ".pointwise_conv1."),
    (".mlp.fc2.", ".pointwise_conv2."),
    ("head.norm.", "layer_norm."),
    (".norm.", ".layer_norm."),
)
_SIZES = {192: "tiny", 384: "small", 768: "base", 1024: "large"}
_DEPTHS = {(96, 9): "tiny", (96, 27): "small", (128, 27): "base", (192, 27): "large"}


def describe(folder: Path, config: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Name and arguments that `create` makes the architecture from.

    Raises:
        InputError: for another model type, or settings that timm's class does not have.
    """
    kind = config.get("model_type")
    try:
        if kind == "dinov3_vit":
            return _describe_vit(folder, config)
        if kind == "dinov3_convnext":
            return _describe_convnext(config)
    except (KeyError, TypeError, IndexError, ZeroDivisionError) as error:
        raise InputError(f"{folder}: config.json is damaged ({error!r})") from None
    raise InputError(
        f"{folder}: transformers models of type {kind!r} cannot be read: dinov3_vit and "
        "dinov3_convnext can"
    )


def _describe_vit(folder: Path, config: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    width = config["hidden_size"]
    usual = {"layer_norm_eps": 1e-5, "key_bias": False, "query_bias": True, "value_bias": True}
    usual |= {"proj_bias": True, "mlp_bias": True}
    for field, value in usual.items():
        if config.get(field, value) != value:
            raise InputError(f"{folder}: {field} {config[field]} is not {value}: cannot be read")
    args: dict[str, Any] = {
        "depth": config["num_hidden_layers"],
        "num_heads": config["num_attention_heads"],
        "mlp_ratio": (config["intermediate_size"] + 0.5) / width,
        "num_reg_tokens": config.get("num_register_tokens", 0),
        "patch_size": config.get("patch_size", 16),
        "rope_temperature": config.get("rope_theta", 100.0),
    }
    if config.get("use_gated_mlp"):
        args |= {"swiglu_mlp": True, "swiglu_align_to": 1}
    args["embed_dim"] = width
    return f"vit_{_SIZES.get(width, 'base')}_patch16_dinov3_qkvb", args


def _describe_convnext(config: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    dims, depths = config["hidden_sizes"], config["depths"]
    known = _DEPTHS.get((dims[0], depths[2]))
    if known and list(depths) == [3, 3, depths[2], 3]:
        return f"convnext_{known}", {}
    return "convnext_tiny", {"dims": list(dims), "depths": list(depths)}


def load(folder: Path, config: dict[str, Any]) -> Encoder:
    """The encoder of a folder, with the constants of its preprocessor_config.json.

    Raises:
        InputError: if it cannot be read, or its weights do not fit its config.
    """
    from openeupe.encoders.create import create

    name, args = describe(folder, config)
    path = folder / "model.safetensors"
    if not path.is_file():
        raise InputError(f"{path} is missing (weights in several files cannot be read)")
    # transformers 5 puts "model." before the blocks' names, 4 did not.
    weights = {key.removeprefix("model."): t for key, t in read_weights(path, name).items()}
    encoder = create(name, **args)
    load_strictly(encoder.trunk, _to_timm(weights, config), path, name)  # type: ignore[arg-type]
    side = config.get("image_size")
    encoder.resolution = side if isinstance(side, int) and side > 0 else encoder.resolution
    constants = read_mapping(folder / "preprocessor_config.json")
    for field, buffer in (("image_mean", encoder.mean), ("image_std", encoder.std)):
        if field in constants:
            try:
                buffer.copy_(torch.tensor(constants[field], dtype=torch.float32).view_as(buffer))
            except (TypeError, ValueError, RuntimeError):
                raise InputError(
                    f"{folder}: {field} in preprocessor_config.json is no RGB constant"
                ) from None
    return encoder.eval()


def save(encoder: Encoder, folder: Path) -> None:
    """Write config.json, model.safetensors and preprocessor_config.json into an empty folder.

    `AutoModel.from_pretrained(FOLDER)` then gives `Tokens.cls` as `pooler_output`; the patch tokens
    are the last `h * w` of `last_hidden_state`.

    Raises:
        InputError: for an encoder that is neither a DINOv3 transformer nor a ConvNeXt.
    """
    trunk: Any = getattr(encoder, "trunk", None)
    vit = isinstance(trunk, Eva) and getattr(trunk.rope, "temperature", None) is not None
    fits = isinstance(encoder, TimmEncoder) and (vit or isinstance(trunk, ConvNeXt))
    state = trunk.state_dict() if fits else {}
    fits &= not any(word in key for key in state for word in ("grn", "pos_embed", "attn_pool"))
    fits &= encoder.args.get("class_token") in (None, "own" if vit else "pooled")
    if not fits:
        raise InputError(
            f"transformers has no class for {encoder.name}: save it as timm or openeupe"
        )
    config = (_vit_config if vit else _convnext_config)(trunk)
    shape = {
        "image_size": encoder.resolution,
        "dtype": "float32",
        "torch_dtype": "float32",
        "openeupe": "saved",
    }  # so that `save` knows the folder as ours
    size = {"height": encoder.resolution, "width": encoder.resolution}
    processor = {
        "image_processor_type": "DINOv3ViTImageProcessorFast",
        "do_resize": True,
        "size": size,
        "resample": 3,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": encoder.mean.flatten().tolist(),
        "image_std": encoder.std.flatten().tolist(),
    }
    for name, content in (("config", config | shape), ("preprocessor_config", processor)):
        text = json.dumps(content, indent=2) + "\n"
        (folder / f"{name}.json").write_text(text, encoding="utf-8")
    weights = {key: tensor.contiguous() for key, tensor in _from_timm(state, config).items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _vit_config(trunk: Any) -> dict[str, Any]:
    block = trunk.blocks[0]
    gated = hasattr(block.mlp, "fc1_g")
    return {
        "architectures": ["DINOv3ViTModel"],
        "model_type": "dinov3_vit",
        "hidden_size": trunk.embed_dim,
        "intermediate_size": block.mlp.fc2.in_features,
        "num_hidden_layers": len(trunk.blocks),
        "num_attention_heads": block.attn.num_heads,
        "num_register_tokens": 0 if trunk.reg_token is None else trunk.reg_token.shape[1],
        "patch_size": trunk.patch_embed.patch_size[0],
        "hidden_act": "silu" if gated else "gelu",
        "use_gated_mlp": gated,
        "layer_norm_eps": trunk.norm.eps,
        "rope_theta": trunk.rope.temperature,
        "pos_embed_rescale": trunk.rope.rescale_coords,
        "query_bias": block.attn.q_bias is not None,
        "key_bias": False,
        "value_bias": block.attn.v_bias is not None,
        "layerscale_value": 1e-5,
    }


def _convnext_config(trunk: Any) -> dict[str, Any]:
    return {
        "architectures": ["DINOv3ConvNextModel"],
        "model_type": "dinov3_convnext",
        "hidden_sizes": [stage.blocks[0].conv_dw.out_channels for stage in trunk.stages],
        "depths": [len(stage.blocks) for stage in trunk.stages],
        "hidden_act": "gelu",
        "layer_norm_eps": trunk.head.norm.eps,
    }


def _from_timm(state: dict[str, Tensor], config: dict[str, Any]) -> dict[str, Tensor]:
    if config["model_type"] == "dinov3_convnext":
        return {_renamed(key, _CONVNEXT): tensor for key, tensor in state.items()}
    weights = {"embeddings.mask_token": torch.zeros(1, 1, config["hidden_size"])}
    for key, tensor in state.items():
        block = _renamed(key.split(".attn.")[0] + ".attention.", _VIT)
        if key.endswith(".attn.qkv.weight"):
            for name, part in zip("qkv", tensor.chunk(3), strict=True):
                weights[f"{block}{name}_proj.weight"] = part
        elif key.endswith((".attn.q_bias", ".attn.v_bias")):
            weights[f"{block}{key[-6]}_proj.bias"] = tensor
        else:
            new = _renamed(key.replace(".mlp.fc1_x.", ".mlp.fc1."), _VIT)
            weights[new] = tensor
    return weights


def _to_timm(weights: dict[str, Tensor], config: dict[str, Any]) -> dict[str, Tensor]:
    if config["model_type"] == "dinov3_convnext":
        return {_renamed(key, _CONVNEXT, back=True): tensor for key, tensor in weights.items()}
    state: dict[str, Tensor] = {}
    for key, tensor in weights.items():
        block = _renamed(key.split("attention.")[0], _VIT, back=True) + "attn."
        if key == "embeddings.mask_token":
            continue
        if key.endswith(".attention.q_proj.weight"):
            names = [key.replace("q_proj", f"{name}_proj") for name in "qkv"]
            if all(name in weights for name in names):
                state[f"{block}qkv.weight"] = torch.cat([weights[name] for name in names])
        elif key.endswith((".q_proj.bias", ".v_proj.bias")):
            state[f"{block}{key[-11]}_bias"] = tensor
        elif not key.endswith((".k_proj.weight", ".v_proj.weight")):
            new = _renamed(key, _VIT, back=True)
            gated = config.get("use_gated_mlp")
            state[new.replace(".mlp.fc1.", ".mlp.fc1_x.") if gated else new] = tensor
    return state


def _renamed(key: str, pairs: tuple[tuple[str, str], ...], *, back: bool = False) -> str:
    for ours, theirs in pairs:
        old, new = (theirs, ours) if back else (ours, theirs)
        if key.startswith(old) or (old[0] == "." and old in key):
            key = key.replace(old, new, 1)
    return key
