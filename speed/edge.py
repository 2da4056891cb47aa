"""Export students with random weights of a trained network's magnitudes, ready to be measured.

    python -m speed.edge FOLDER eupe_vit_t eupe_convnext_t --formats onnx:fp32 openvino:bf16
    python -m speed.edge FOLDER eupe_vit_t --formats onnx:fp32:512x384 onnx:fp32:dynamic
    openeupe latency FOLDER/eupe_vit_t-*

The released weights are gated; speed and fidelity depend on magnitudes, not on what was learned.
Layer scales, which start at 1e-5 and would hide every error of a block, are drawn from 0.1 to 0.5.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from rich.console import Console
from torch import nn

from openeupe.cli.drawn_progress import DrawnProgress
from openeupe.deployment.config import ExportConfig
from openeupe.deployment.export import ParityError, export
from openeupe.encoders import Encoder, create, load, save
from openeupe.errors import InputError

FORMATS = ("onnx:fp32", "onnx:int8", "openvino:fp32", "openvino:bf16", "openvino:int8")


def student(name: str) -> Encoder:
    """An encoder whose every layer matters, as after training."""
    torch.manual_seed(0)
    encoder = create(name)
    for module in encoder.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            fan_in = module.weight[0].numel()
            nn.init.trunc_normal_(module.weight, std=fan_in**-0.5)
            if module.bias is not None:
                nn.init.normal_(module.bias, std=0.02)
        if isinstance(module, nn.LayerNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
    for key, parameter in encoder.named_parameters():
        if "gamma" in key:
            nn.init.uniform_(parameter, 0.1, 0.5)
    return encoder.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="+", help="students, or anything that openeupe.load takes")
    parser.add_argument(
        "--formats", nargs="+", default=FORMATS, help="TARGET:PRECISION[:SIZES|:dynamic]"
    )
    parser.add_argument("--images", type=Path)
    arguments = parser.parse_args()
    console = Console()
    progress = DrawnProgress(console)
    for name in arguments.names:
        place = arguments.folder / name.replace(":", "_")
        if name.startswith("eupe_") and not place.exists():
            save(student(name), place)
        encoder = load(place) if place.exists() else load(name)
        for format in arguments.formats:
            target, precision, *sizes = format.split(":")
            dynamic = sizes == ["dynamic"]
            out = arguments.folder / "-".join([place.name, target, precision, *sizes])
            if out.exists():
                continue
            started = time.perf_counter()
            try:
                config = ExportConfig.model_validate(
                    {
                        "target": target,
                        "precision": precision,
                        "resolution": sizes[0] if sizes and not dynamic else None,
                        "dynamic": dynamic,
                    }
                )
                about = export(
                    encoder, out, config, images=arguments.images, source=name, progress=progress
                )
                seconds = time.perf_counter() - started
                console.print(f"{out.name}: {seconds:.0f} s, {json.dumps(about['notes'])}")
            except (ParityError, InputError) as error:
                console.print(f"{out.name}: {error}", style="red")


if __name__ == "__main__":
    main()
