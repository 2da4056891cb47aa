"""Read and write folders in timm's layout."""

from __future__ import annotations

import contextlib
import inspect
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import save_for_hf
from torch import nn

from openeupe.encoders.arguments import check_arguments, timm_class
from openeupe.encoders.backbone import TimmEncoder, Trunk, norm_behind_pool
from openeupe.encoders.encoder import Arguments, Encoder
from openeupe.encoders.reopened import equal, in_float32, same_tokens, sample
from openeupe.errors import InputError

_OURS = "openeupe"  # tag of the weights, and key of config.json that timm does not read


@dataclass(frozen=True)
class Opening:
    """Python expressions by which timm's users get the tokens."""

    features: str
    cls: str


def describe(folder: Path, config: Arguments) -> tuple[str, Arguments]:
    """Name and arguments that `create` makes the architecture from.

    Raises:
        InputError: for an architecture that this timm does not know.
    """
    name, args = config.get("architecture"), config.get("model_args") or {}
    if not isinstance(args, dict):
        raise InputError(f"{folder}: model_args in config.json are no settings by name")
    args = dict(args)
    if not isinstance(name, str) or not timm.is_model(name):
        raise InputError(f"{folder}: timm knows no architecture {name!r}: update timm")
    if args.pop("in_chans", 3) != 3:
        raise InputError(f"{folder}: an encoder takes RGB images, this one takes other channels")
    class_token = _class_token(config, args)
    if class_token is not None:
        args["class_token"] = class_token
    if class_token != "projected":
        args.pop("num_classes", None)
    check_arguments(f"{folder}: model_args in config.json", args, TimmEncoder, timm_class(name))
    return name, args


def _class_token(config: Arguments, args: Arguments) -> str | None:
    """Class token that `save` recorded; None in folders of other programs."""
    noted = config.get(_OURS)
    if isinstance(noted, dict):
        token = noted.get("class_token")
        return token if isinstance(token, str) else None
    stated = config.get("pretrained_cfg")
    if isinstance(stated, dict) and stated.get("tag") == _OURS:
        # Older folders do not record it: the class token was the pooled token.
        return "own" if args.get("global_pool") == "token" else "pooled"
    return None


def load(folder: Path, config: Arguments) -> Encoder:
    """Load a folder's encoder with the input constants of its config.

    Raises:
        InputError: if the weights are missing, damaged or not those of the architecture.
    """
    name, args = describe(folder, config)
    files = [folder / file for file in ("model.safetensors", "pytorch_model.bin")]
    there = next((file for file in files if file.is_file()), None)
    if there is None:
        raise InputError(f"{folder}: model.safetensors is missing: copy the whole folder")
    encoder = TimmEncoder(name, pretrained=there, **args)
    stated = config.get("pretrained_cfg")
    stated = stated if isinstance(stated, dict) else config
    mean, std = encoder.constants
    try:
        encoder.set_constants(stated.get("mean", mean), stated.get("std", std))
    except (TypeError, ValueError) as error:
        raise InputError(f"{folder}: mean or std in config.json is wrong ({error})") from None
    size = stated.get("input_size")
    if isinstance(size, list) and size and isinstance(size[-1], int) and size[-1] > 0:
        # The nearest multiple of the patch size: some ConvNets were trained at other sizes.
        encoder.resolution = max(round(size[-1] / encoder.patch_size), 1) * encoder.patch_size
    return encoder


def save(encoder: Encoder, folder: Path, licence: str) -> Opening:
    """Write config.json and model.safetensors in timm's layout into an empty folder.

    The folder is opened again, by timm and by `load`, and both must give the encoder's tokens.

    Returns:
        How `timm.create_model("local-dir:FOLDER", pretrained=True)` gives them.

    Raises:
        InputError: for an encoder that is no timm network, or that timm cannot give back.
    """
    if not isinstance(encoder, TimmEncoder):
        raise InputError(f"{encoder.name} is no timm network: save it as openeupe")
    _write(encoder, folder, licence)
    path = folder / "config.json"
    written = json.loads(path.read_text(encoding="utf-8"))
    original: Any = in_float32(encoder)
    for changes in _changes(original.class_token, original.trunk):
        config = {**written, "model_args": written["model_args"] | changes}
        config["global_pool"] = config["model_args"].get("global_pool")
        path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        opening = _opening(original, folder)
        if opening is not None and same_tokens(original, load(folder, config)):
            return opening
    raise InputError(
        f"{encoder.name} with class token {encoder.class_token!r} would give other tokens when "
        "timm opens it: save it as openeupe"
    )


def _write(encoder: TimmEncoder, folder: Path, licence: str) -> None:
    resolution, (mean, std) = encoder.resolution, encoder.constants
    save_for_hf(
        encoder.trunk,
        str(folder),
        # These describe our weights, not those that timm publishes for the architecture.
        model_config={
            "pretrained_cfg": {
                "tag": _OURS,
                "license": licence,
                "mean": mean,
                "std": std,
                "input_size": [3, resolution, resolution],
            },
            _OURS: {"class_token": encoder.class_token},
        },
        safe_serialization=True,
    )


def _changes(class_token: str, trunk: Trunk) -> list[Arguments]:
    """Changes of timm's arguments so that the model pools the class token."""
    pool = {"own": "token", "mean": "avg"}.get(class_token)
    if pool is None:
        return [{}]
    # A transformer's final norm stays where it is, whatever the pool.
    known = inspect.signature(type(trunk).__init__).parameters
    behind = not isinstance(getattr(trunk, "fc_norm", None) or nn.Identity(), nn.Identity)
    norms = {name: behind for name in ("fc_norm", "use_fc_norm") if name in known}
    return [{"global_pool": pool, **norms}, {}]


@torch.inference_mode()
def _opening(encoder: Any, folder: Path) -> Opening | None:
    """The simplest expressions by which timm gives the tokens. None if there is none."""
    images, tokens = sample(encoder)
    pixels = ((images - encoder.mean) / encoder.std).contiguous(memory_format=torch.channels_last)
    features = "model.forward_features(pixels)"
    norm = norm_behind_pool(encoder.trunk)
    if norm is not None:
        place = next(name for name, part in encoder.trunk.named_modules() if part is norm)
        features = f"model.{place}({features})"
    prefix = getattr(encoder.trunk, "num_prefix_tokens", 0)
    lines = {
        "own": ["features[:, 0]"],
        "mean": [
            f"features[:, {prefix}:].mean(1)",
            *("features.mean((2, 3))", "features.mean((1, 2))"),
        ],
    }
    try:
        model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
        known = {"model": model, "pixels": pixels}
        # The expressions of the card are run as they are; they are constants above.
        known["features"] = eval(features, known)
        if not equal(tokens.patches, encoder.grid(known["features"], *images.shape[-2:])):
            return None
    except Exception:  # timm's constructors and networks meet what they do not check
        return None
    for cls in ["model(pixels)", *lines.get(encoder.class_token, [])]:
        with contextlib.suppress(IndexError, RuntimeError):
            if equal(tokens.cls, eval(cls, known)):
                return Opening(features, cls)
    return None
