"""Are the released students the same here as in their authors' code, in timm and in transformers?

    git clone https://github.com/facebookresearch/EUPE official
    python -m experiments.parity_official official

No weights are fetched: those of each student follow from the names of its tensors, so the official
code, run as it is, and ours are given the same. Prints the largest absolute difference over class
and patch tokens for each student and size; `--golden FILE` also keeps a few of the official
numbers, against which the tests compare without the official code.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent.parent))

import openeupe
from openeupe.encoders import timm_folder, transformers_folder
from tests.encoders.released_layout import FILES, write
from tests.encoders.test_released import SIZES, chosen, photo

OFFICIAL = {
    **{f"eupe_vit_{size}": f"eupe_vit{size}16" for size in "tsb"},
    **{f"eupe_convnext_{s[0]}": f"eupe_convnext_{s}" for s in ("tiny", "small", "base")},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("official", type=Path, help="checkout of the authors' repository")
    parser.add_argument("--golden", type=Path, help="write a few of the official numbers here")
    parser.add_argument("--only", nargs="*", default=list(FILES), help="some of the students")
    options = parser.parse_args()
    sys.path.insert(0, str(options.official))
    hub = importlib.import_module("eupe.hub.backbones")
    golden: dict[str, Any] = {}
    print("| student | size | ours | timm | transformers |\n|---|---|---|---|---|")
    for name in options.only:
        with tempfile.TemporaryDirectory() as scratch:
            networks = forms(name, Path(scratch), hub)
            for height, width in SIZES:
                image = photo(height, width)
                official = networks["official"](image)
                worst = {form: gap(network(image), official) for form, network in networks.items()}
                cells = " | ".join(f"{worst[form]:.1e}" for form in ("ours", "timm", "hf"))
                print(f"| {name} | {height}x{width} | {cells} |", flush=True)
                golden[f"{name} {height}x{width}"] = chosen(*official)
    if options.golden:
        options.golden.write_text(json.dumps(golden, indent=1) + "\n")


def forms(name: str, folder: Path, hub: Any) -> dict[str, Any]:
    """The same student in four forms, each a function: image -> (class token, patch tokens)."""
    import timm
    from transformers import AutoModel

    path = write(folder, name)
    state = torch.load(path, weights_only=True)
    official = getattr(hub, OFFICIAL[name])(pretrained=False)
    missing, foreign = official.load_state_dict(state, strict=False)
    assert not missing, missing
    assert all(key.startswith("projectors.") for key in foreign), foreign
    official.eval()
    ours = openeupe.load(path)
    mean, std = ours.mean, ours.std
    for form in ("timm", "hf"):
        (folder / form).mkdir()
    timm_folder.save(ours, folder / "timm", "other")
    transformers_folder.save(ours, folder / "hf")
    timm_model = timm.create_model(f"local-dir:{folder / 'timm'}", pretrained=True).eval()
    hf_model = AutoModel.from_pretrained(folder / "hf").eval()

    @torch.no_grad()
    def run_official(image: Tensor) -> tuple[Tensor, Tensor]:
        told = official.forward_features((image - mean) / std)
        return told["x_norm_clstoken"], told["x_norm_patchtokens"]

    @torch.no_grad()
    def run_ours(image: Tensor) -> tuple[Tensor, Tensor]:
        tokens = ours(image)
        return tokens.cls, tokens.patches.flatten(2).transpose(1, 2)

    @torch.no_grad()
    def run_timm(image: Tensor) -> tuple[Tensor, Tensor]:
        features = timm_model.forward_features((image - mean) / std)
        cls = timm_model.forward_head(features)
        if features.ndim == 4:
            return cls, timm_model.head.norm(features).flatten(2).transpose(1, 2)
        return cls, features[:, timm_model.num_prefix_tokens :]

    @torch.no_grad()
    def run_hf(image: Tensor) -> tuple[Tensor, Tensor]:
        told = hf_model((image - mean) / std)
        grid = image.shape[-2] // ours.patch_size * (image.shape[-1] // ours.patch_size)
        return told.pooler_output, told.last_hidden_state[:, -grid:]

    return {"official": run_official, "ours": run_ours, "timm": run_timm, "hf": run_hf}


def gap(tokens: tuple[Tensor, Tensor], official: tuple[Tensor, Tensor]) -> float:
    """The largest absolute difference."""
    return max(float(np.abs((a - b).numpy()).max()) for a, b in zip(tokens, official, strict=True))


if __name__ == "__main__":
    main()
