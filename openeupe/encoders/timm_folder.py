"""Folders in timm's layout, as `timm.create_model("local-dir:...")` and its hub names open them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import save_for_hf

from openeupe.encoders.arguments import check_arguments, timm_class
from openeupe.encoders.backbone import TimmEncoder
from openeupe.encoders.contract import Encoder
from openeupe.errors import InputError


def describe(folder: Path, config: dict[str, Any]) -> tuple[str, dict[str, Any]]:
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
    args.pop("num_classes", None)
    check_arguments(f"{folder}: model_args in config.json", args, TimmEncoder, timm_class(name))
    return name, args


def load(folder: Path, config: dict[str, Any]) -> Encoder:
    """The encoder of a folder, with the input constants that its config states.

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
    for field, buffer in (("mean", encoder.mean), ("std", encoder.std)):
        if field in stated:
            try:
                buffer.copy_(torch.tensor(stated[field], dtype=torch.float32).view_as(buffer))
            except (TypeError, ValueError, RuntimeError):
                raise InputError(f"{folder}: {field} in config.json is no RGB constant") from None
    side = stated.get("input_size")
    if isinstance(side, list) and side and isinstance(side[-1], int) and side[-1] > 0:
        encoder.resolution = side[-1]
    return encoder


def save(encoder: Encoder, folder: Path, licence: str) -> None:
    """Write config.json and model.safetensors in timm's layout into an empty folder.

    `timm.create_model("local-dir:FOLDER", pretrained=True)` then gives `Tokens.cls`, unless the
    class token is the mean patch token or a projection; `forward_features` the patch tokens.

    Raises:
        InputError: for an encoder that is no timm network.
    """
    if not isinstance(encoder, TimmEncoder):
        raise InputError(f"{encoder.name} is no timm network: save it as openeupe")
    side = encoder.resolution
    save_for_hf(
        encoder.trunk,
        str(folder),
        # What these weights are, not those that timm publishes under the architecture's name.
        model_config={
            "pretrained_cfg": {
                "tag": "openeupe",
                "license": licence,
                "mean": encoder.mean.flatten().tolist(),
                "std": encoder.std.flatten().tolist(),
                "input_size": [3, side, side],
            }
        },
        safe_serialization=True,
    )
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    pool = {"own": "token", "mean": "avg"}.get(encoder.class_token, config["global_pool"])
    config["global_pool"] = config["model_args"]["global_pool"] = pool  # `Encoder` pools by itself
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
