"""Read and write the layout of transformers' DINOv3 classes, without transformers.

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

from openeupe.encoders.backbone import TimmEncoder, Trunk
from openeupe.encoders.encoder import Arguments, Encoder
from openeupe.encoders.reopened import in_float32, same_tokens
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
_ACTS = ("gelu", "relu", "silu")  # under these names in both libraries
_DEPTHS = {(96, 9): "tiny", (96, 27): "small", (128, 27): "base", (192, 27): "large"}


def describe(folder: Path, config: Arguments) -> tuple[str, Arguments]:
    """Name and arguments that `create` makes the architecture from.

    Raises:
        InputError: for another model type, or settings that timm's class does not have.
    """
    kind = config.get("model_type")
    try:
        if kind == "dinov3_vit":
            return _describe_vit(folder, config)
        if kind == "dinov3_convnext":
            return _describe_convnext(folder, config)
    except (KeyError, TypeError, IndexError, ZeroDivisionError) as error:
        raise InputError(f"{folder}: config.json is damaged ({error!r})") from None
    raise InputError(
        f"{folder}: transformers models of type {kind!r} cannot be read: dinov3_vit and "
        "dinov3_convnext can"
    )


def _describe_vit(folder: Path, config: Arguments) -> tuple[str, Arguments]:
    width, patch = config["hidden_size"], config.get("patch_size", 16)
    gated = bool(config.get("use_gated_mlp"))
    fixed = {"hidden_act": "silu" if gated else "gelu", "layer_norm_eps": 1e-5, "num_channels": 3}
    fixed |= {"key_bias": False, "query_bias": True, "value_bias": True}
    fixed |= {"proj_bias": True, "mlp_bias": True}
    _demand(folder, {"hidden_act": "gelu", **config}, fixed)
    if isinstance(patch, list) and len(set(patch)) == 1:
        patch = patch[0]
    args: Arguments = {
        "depth": config["num_hidden_layers"],
        "num_heads": config["num_attention_heads"],
        "mlp_ratio": (config["intermediate_size"] + 0.5) / width,
        "num_reg_tokens": config.get("num_register_tokens", 0),
        "patch_size": patch,
        "rope_temperature": config.get("rope_theta", 100.0),
    }
    # Random coordinates, in training alone.
    for kind, default in (("rescale", 2.0), ("shift", None), ("jitter", None)):
        if (amount := config.get(f"pos_embed_{kind}", default)) is not None:
            args[f"rope_{kind}_coords"] = amount
    if gated:
        args |= {"swiglu_mlp": True, "swiglu_align_to": 1}
    args["embed_dim"] = width
    return f"vit_{_SIZES.get(width, 'base')}_patch16_dinov3_qkvb", args


def _describe_convnext(folder: Path, config: Arguments) -> tuple[str, Arguments]:
    dims, depths = config["hidden_sizes"], config["depths"]
    act, eps = config.get("hidden_act", "gelu"), config.get("layer_norm_eps", 1e-6)
    _demand(folder, config, {"num_channels": 3})
    if act not in _ACTS:
        raise InputError(
            f"{folder}: hidden_act {act!r} in config.json cannot be read, only {', '.join(_ACTS)}"
        )
    args: Arguments = {} if act == "gelu" else {"act_layer": act}
    args |= {} if eps == 1e-6 else {"norm_eps": float(eps)}
    known = _DEPTHS.get((dims[0], depths[2]))
    usual = ([dims[0] * wider for wider in (1, 2, 4, 8)], [3, 3, depths[2], 3])
    if known and (list(dims), list(depths)) == usual:
        return f"convnext_{known}", args
    return "convnext_tiny", {"dims": list(dims), "depths": list(depths), **args}


def _demand(folder: Path, config: Arguments, fixed: Arguments) -> None:
    """Refuse settings that timm's class does not have. Missing ones have the default."""
    for field, value in fixed.items():
        if config.get(field, value) != value:
            raise InputError(
                f"{folder}: {field} {config[field]!r} in config.json cannot be read, only {value!r}"
            )


def load(folder: Path, config: Arguments) -> Encoder:
    """Load the encoder of a folder with the constants of preprocessor_config.json.

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
    resolution = config.get("image_size")
    encoder.resolution = (
        resolution if isinstance(resolution, int) and resolution > 0 else encoder.resolution
    )
    stated = read_mapping(folder / "preprocessor_config.json")
    mean, std = encoder.constants
    try:
        encoder.set_constants(stated.get("image_mean", mean), stated.get("image_std", std))
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{folder}: image_mean or image_std in preprocessor_config.json is wrong ({error})"
        ) from None
    return encoder.eval()


def save(encoder: Encoder, folder: Path) -> None:
    """Write config.json, model.safetensors and preprocessor_config.json into an empty folder.

    `AutoModel.from_pretrained(FOLDER)` then gives `Tokens.cls` as `pooler_output`; the patch tokens
    are the last `h * w` of `last_hidden_state`.

    Raises:
        InputError: for an encoder that is neither a DINOv3 transformer nor a ConvNeXt, or has
            settings that transformers' classes do not have: the folder is opened again and
            compared.
    """
    trunk: Trunk = getattr(encoder, "trunk", None)
    vit = isinstance(trunk, Eva) and getattr(trunk.rope, "temperature", None) is not None
    refusal = InputError(
        f"transformers has no class for {encoder.name} with its settings: save it as timm or "
        "openeupe"
    )
    if not isinstance(encoder, TimmEncoder) or not (vit or isinstance(trunk, ConvNeXt)):
        raise refusal
    try:
        config = (_vit_config if vit else _convnext_config)(trunk)
        _write(encoder, folder, config)
        # `load` reads only the settings of transformers' classes.
        fits = same_tokens(in_float32(encoder), load(folder, config))
    except (InputError, AttributeError):  # of a part that these classes always have
        fits = False
    if not fits:
        raise refusal


def _write(encoder: TimmEncoder, folder: Path, config: Arguments) -> None:
    shape = {
        "image_size": encoder.resolution,
        "dtype": "float32",
        "torch_dtype": "float32",
        "openeupe": "saved",  # so that `save` knows the folder as ours
    }
    size = {"height": encoder.resolution, "width": encoder.resolution}
    processor = {
        "image_processor_type": "DINOv3ViTImageProcessorFast",
        "do_resize": True,
        "size": size,
        "resample": 3,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": encoder.constants[0],
        "image_std": encoder.constants[1],
    }
    config |= shape
    for name, content in (("config", config), ("preprocessor_config", processor)):
        text = json.dumps(content, indent=2) + "\n"
        (folder / f"{name}.json").write_text(text, encoding="utf-8")
    weights = {
        key: tensor.contiguous()
        for key, tensor in _from_timm(encoder.trunk.state_dict(), config).items()
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _vit_config(trunk: Trunk) -> Arguments:
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
        "pos_embed_shift": trunk.rope.shift_coords,
        "pos_embed_jitter": trunk.rope.jitter_coords,
        "query_bias": block.attn.q_bias is not None,
        "key_bias": False,
        "value_bias": block.attn.v_bias is not None,
        "layerscale_value": 1e-5,
    }


def _convnext_config(trunk: Trunk) -> Arguments:
    return {
        "architectures": ["DINOv3ConvNextModel"],
        "model_type": "dinov3_convnext",
        "hidden_sizes": [stage.blocks[0].conv_dw.out_channels for stage in trunk.stages],
        "depths": [len(stage.blocks) for stage in trunk.stages],
        "hidden_act": _act(trunk.stages[0].blocks[0].mlp.act),
        "layer_norm_eps": trunk.head.norm.eps,
    }


def _act(module: Any) -> str:
    """transformers' name of an activation, for `_ACTS`. Torch and timm have a class each."""
    exact = getattr(module, "approximate", "none") == "none"
    return type(module).__name__.lower() if exact else "gelu_tanh"


def _from_timm(state: dict[str, Tensor], config: Arguments) -> dict[str, Tensor]:
    if config["model_type"] == "dinov3_convnext":
        return {_renamed(key, _CONVNEXT): tensor for key, tensor in state.items()}
    width = config["hidden_size"]
    weights = {"embeddings.mask_token": torch.zeros(1, 1, width)}
    if not config["num_register_tokens"]:
        weights["embeddings.register_tokens"] = torch.zeros(1, 0, width)
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


def _to_timm(weights: dict[str, Tensor], config: Arguments) -> dict[str, Tensor]:
    if config["model_type"] == "dinov3_convnext":
        return {_renamed(key, _CONVNEXT, back=True): tensor for key, tensor in weights.items()}
    state: dict[str, Tensor] = {}
    for key, tensor in weights.items():
        block = _renamed(key.split("attention.")[0], _VIT, back=True) + "attn."
        if key == "embeddings.mask_token" or not tensor.numel():  # no registers: an empty tensor
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
