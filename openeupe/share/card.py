"""Model cards for the hub."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import EvalResult, ModelCardData
from torch import Tensor

from openeupe.encoders import Encoder
from openeupe.encoders.timm_folder import Opening
from openeupe.evaluation.results import Results
from openeupe.share.origin import Origin

_OPEN = {
    "openeupe": """import openeupe

encoder = openeupe.load("{name}")
tokens = encoder(images)  # [B, 3, H, W] RGB in [0, 1] -> tokens.cls, tokens.patches""",
    "timm": """import timm

model = timm.create_model("local-dir:{name}", pretrained=True).eval()
# pixels: normalized as timm.data.resolve_model_data_config(model) states
features = {timm.features}  # patch tokens, behind prefix tokens if there are any
cls = {timm.cls}""",
    "transformers": """from transformers import AutoImageProcessor, AutoModel

model = AutoModel.from_pretrained("{name}").eval()
processor = AutoImageProcessor.from_pretrained("{name}")
outputs = model(**processor(image, return_tensors="pt"))  # .pooler_output, .last_hidden_state""",
}


def card_licence(origin: Origin, chosen: str | None) -> tuple[str, str | None]:
    """`license` and `license_name` of the card: the user's choice, else the strictest."""
    if chosen:
        return chosen, None
    special = [licence.name for licence in origin.experts.values() if not licence.permissive]
    if not special and origin.experts:
        return "apache-2.0", None
    identifiers = [name for name in special if " " not in name and name != "unknown"]
    return "other", identifiers[0] if identifiers else "see-the-teachers"


def model_card(
    encoder: Encoder,
    origin: Origin,
    layout: str,
    name: str,
    licence: str | None = None,
    opening: Opening | None = None,
) -> str:
    """Text of README.md: YAML metadata with a `model-index`, then sections.

    Args:
        layout: openeupe, timm or transformers.
        name: the folder's, which the reader will load.
        licence: an SPDX identifier, if the teachers' licences let you choose.
        opening: for timm, how its users get the tokens.
    """
    identifier, licence_name = card_licence(origin, licence)
    data = ModelCardData(
        license=identifier,
        license_name=licence_name,
        library_name=layout,
        pipeline_tag="image-feature-extraction",
        tags=["openeupe", "vision-encoder", "distillation"],
        model_name=name if origin.results else None,
        eval_results=[one for results in origin.results for one in _eval_results(results)] or None,
    )
    parameters = sum(parameter.numel() for parameter in encoder.parameters()) / 1e6
    parts = [
        f"---\n{data.to_yaml()}\n---\n\n# {name}\n",
        f"`{encoder.name}`, {parameters:.1f} M parameters, made with "
        "[OpenEUPE](https://arxiv.org/abs/2603.22387). "
        f"Class token {encoder.cls_dim}, patch tokens {encoder.patch_dim} wide, one every "
        f"{encoder.patch_size} pixels; {_resolutions(encoder, origin)}. Input constants: mean "
        f"{_rounded(encoder.mean)}, std {_rounded(encoder.std)}.\n",
        _opening(layout, name, opening),
        _results(origin),
        _making(origin),
        _licences(origin),
    ]
    return "\n".join(part for part in parts if part)


def _opening(layout: str, name: str, opening: Opening | None) -> str:
    forms = dict.fromkeys(("openeupe", layout))
    blocks = (f"```python\n{_OPEN[form].format(name=name, timm=opening)}\n```\n" for form in forms)
    return "## Open it\n\n" + "\n".join(blocks)


def _eval_results(results: Results) -> list[EvalResult]:
    suite = results.config.suite
    return [
        EvalResult(
            task_type="image-feature-extraction",
            dataset_type=f"{suite}/{name}",
            dataset_name=f"{one.benchmark.protocol} (suite {suite})",
            metric_type=score.name,
            metric_value=round(score.value, 4),
        )
        for name, one in results.benchmarks.items()
        if (score := one.score) is not None and score.value is not None
    ]


def _results(origin: Origin) -> str:
    rows = [
        f"| {results.config.suite} | {name} | {one.benchmark.protocol} | {score.name} | "
        f"{score.value:.2f} {score.unit} | {score.low:.2f} to {score.high:.2f} |"
        for results in origin.results
        for name, one in results.benchmarks.items()
        if (score := one.score) and None not in (score.value, score.low, score.high)
    ]
    if not rows:
        return "## Results\n\nNot evaluated yet: `openeupe evaluate`.\n"
    head = "| suite | benchmark | protocol | metric | score | 95 % interval |"
    head += "\n|---|---|---|---|---|---|"
    return "\n".join(["## Results\n", head, *rows, ""])


def _making(origin: Origin) -> str:
    if not origin.info:
        return ""
    info = origin.info
    text = (
        f"## How it was made\n\nStage `{info.stage}` of run `{info.run}`: {info.steps} "
        f"steps, {info.images:,} images seen, seed {info.seed}, on {info.device}.\n"
    )
    if origin.recipe is not None:
        names = ", ".join(f"`{Path(source.path).name}`" for source in origin.recipe.data.sources)
        text += f"\nData: {names}.\n\n<details><summary>The whole recipe</summary>\n\n"
        text += f"```yaml\n{origin.recipe_yaml}```\n\n</details>\n"
    return text


def _licences(origin: Origin) -> str:
    if not origin.experts:
        return "## Licences\n\nNo teachers are known.\n"
    rows = [
        f"| {name} | {licence.name} | {licence.follows} |"
        for name, licence in origin.experts.items()
    ]
    strict = [name for name, licence in origin.experts.items() if not licence.permissive]
    end = (
        f"The strictest licence applies: clarify the terms of {', '.join(strict)} first."
        if strict
        else "They only require notices: you can choose the licence of this model."
    )
    table = "\n".join(["| weights | licence | what follows |", "|---|---|---|", *rows])
    return f"## Licences\n\n{table}\n\n{end} No legal advice.\n"


def _resolutions(encoder: Encoder, origin: Origin) -> str:
    native = f"the architecture's own resolution is {encoder.resolution} px"
    trained = ", ".join(map(str, origin.resolutions))
    return f"distilled at {trained} px ({native})" if trained else native


def _rounded(constants: Tensor) -> str:
    return ", ".join(f"{value:.4g}" for value in constants.flatten().tolist())
