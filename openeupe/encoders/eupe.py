"""The EUPE students, the proxy and the paper's teachers, by name.

Parameter counts. The official code counts `mask_token` (one width) and, for every block, the key
bias that it then masks to zero (one width): 13 widths of a 12-block transformer that never act.
Here the trainable parameters are 2,496 / 4,992 / 9,984 fewer for ViT-T/S/B than the paper's code
reports, and equal for the ConvNeXts.

Initialization. timm scales the output projections of block n by 1/sqrt(2n), the DINOv3 code does
not; both then damp every branch by a layer scale of 1e-5.

Class tokens of the teachers, none of which the paper defines. PEcore-G and PElang-G have none in
the trunk:
    pe_core_g: "projected", the attention pool through the projection to 1280, since zero-shot
        needs the space it shares with the text tower; or "pooled" (1536).
    pe_lang_g: "mean" of its patch tokens; it has no pool of its own.
    dinov3_h_plus: "own" (1280).
    siglip2_g: "pooled", its attention pool (1536), which is the space of its text tower.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from openeupe.encoders.backbone import TimmEncoder
from openeupe.encoders.encoder import Arguments
from openeupe.errors import InputError

# Coordinates of the rotary embedding are rescaled by up to 2 in training, as in the DINOv3 code.
_ROPE = {"rope_rescale_coords": 2.0}

PROXY = "vit_base_patch16_dinov3_qkvb.lvd1689m"  # widened and deepened

ARCHITECTURES: dict[str, tuple[str, Arguments]] = {
    # Students (paper section 4.1), 256 px, ImageNet constants.
    "eupe_vit_t": ("vit_tiny_patch16_dinov3_qkvb.eupe_lvd1689m", _ROPE),
    "eupe_vit_s": ("vit_small_patch16_dinov3_qkvb.eupe_lvd1689m", _ROPE),
    "eupe_vit_b": ("vit_base_patch16_dinov3_qkvb.eupe_lvd1689m", _ROPE),
    "eupe_convnext_t": ("convnext_tiny.eupe_lvd1689m", {}),
    "eupe_convnext_s": ("convnext_small.eupe_lvd1689m", {}),
    "eupe_convnext_b": ("convnext_base.eupe_lvd1689m", {}),
    # Teachers (paper sections 4.1 and 4.3), each at its own resolution and with its own constants.
    "pe_core_g": ("vit_pe_core_gigantic_patch14_448.fb", {"class_token": "projected"}),
    "pe_lang_g": ("vit_pe_lang_gigantic_patch14_448.fb", {"class_token": "mean"}),
    "dinov3_h_plus": ("vit_huge_plus_patch16_dinov3_qkvb.lvd1689m", {"class_token": "own"}),
    "siglip2_g": ("vit_giantopt_patch16_siglip_384.v2_webli", {"class_token": "pooled"}),
}


def build(name: str, *, pretrained: bool | str | Path = False, **args: Any) -> TimmEncoder:
    """Make one of `ARCHITECTURES`. `args` (depth, class_token, ...) go to `TimmEncoder`.

    Raises:
        InputError: as `TimmEncoder`.
    """
    timm_name, fixed = ARCHITECTURES[name]
    encoder = TimmEncoder(timm_name, name=name, pretrained=pretrained, **{**fixed, **args})
    encoder.args = args
    return encoder


def build_proxy(
    *,
    pretrained: bool | str | Path = False,
    width: int = 1536,
    depth: int = 50,
    heads: int = 16,
    mlp: int | None = None,
    registers: int = 4,
    patch: int = 16,
    **args: Any,
) -> TimmEncoder:
    """Make the proxy: a 1.85 B transformer of the DINOv3 kind.

    The paper gives 1.9 B parameters and 4 registers (section 4.1); width 1536 follows from the
    released students' heads. Depth 50, 16 heads and a hidden width of 8960 are the shape of
    PE-G, the best candidate of that size; the patch of 16 follows from the resolutions 256, 384
    and 512 that stages 2 and 3 feed it.

    Args:
        mlp: hidden width; by default in the ratio 8960 / 1536 to `width`.
        args: further settings of `TimmEncoder`.
    """
    given = {"width": width, "depth": depth, "heads": heads, "registers": registers, "patch": patch}
    given |= {} if mlp is None else {"mlp": mlp}
    if width <= 0 or heads <= 0 or width % (4 * heads):
        raise InputError(
            f"eupe_proxy: width {width} over {heads} heads leaves no multiple of 4 for the rotary "
            f"embedding: choose a width that {4 * max(heads, 1)} divides"
        )
    if pretrained is True:
        raise InputError(
            "eupe_proxy: no proxy has been published: train one, or give pretrained a weights file"
        )
    hidden = mlp or round(width * 8960 / 1536)
    encoder = TimmEncoder(
        PROXY,
        name="eupe_proxy",
        pretrained=pretrained,
        embed_dim=width,
        depth=depth,
        num_heads=heads,
        mlp_ratio=(hidden + 0.5) / width,  # timm rounds the product down
        num_reg_tokens=registers,
        patch_size=patch,
        **{**_ROPE, **args},
    )
    encoder.args = {**given, **args}
    return encoder
