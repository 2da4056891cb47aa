"""Licences of published weights, and their consequences for students.

A reading aid, no legal advice: whether a licence reaches a model that was trained on another
model's outputs is settled by its text and the law where you are, not here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import timm

from openeupe.encoders.dinov2_focus_weights import DINOV2_FOCUS
from openeupe.encoders.eupe import ARCHITECTURES
from openeupe.encoders.expert_weights import CRAFT, EFFICIENTNET_LITE0, HED
from openeupe.encoders.resolver import resolve
from openeupe.encoders.sources import File, Published
from openeupe.errors import InputError

_EXPERTS = {
    "efficientnet_lite0": EFFICIENTNET_LITE0.licence,
    "hed": HED.licence,
    "craft": CRAFT.licence,
    "dinov2_s_focus": DINOV2_FOCUS.licence,
}
FAIR = "fair-noncommercial-research-license"
_FOLLOWS = {
    FAIR: "noncommercial research only, results and derivatives included; who gets a "
    "derivative gets it under the same terms, with a copy of them",
    "dinov3-license": "derivatives stay under the DINOv3 License, with a copy of it",
    "apache-2.0": "keep the notice; no further conditions on the student",
    "mit": "keep the notice; no further conditions on the student",
}
PERMISSIVE = ("apache-2.0", "mit", "bsd-3-clause")


@dataclass(frozen=True)
class Licence:
    """Licence of weights.

    name: an identifier, or the publisher's words. follows: consequence for a student.
    """

    name: str
    follows: str

    @property
    def permissive(self) -> bool:
        """Whether it only requires a notice."""
        return self.name in PERMISSIVE


def licence_of(encoder: str) -> Licence:
    """The licence of an encoder's published weights, by encoder name."""
    name = _named(encoder)
    if encoder in _EXPERTS and not name.startswith(("Apache", "MIT")):
        return Licence(name, "unclear: ask its authors before you publish or sell")
    if encoder in _EXPERTS:
        alone = name.lower() in PERMISSIVE
        terms = (
            _FOLLOWS["apache-2.0"] if alone else "keep the notices; read the words before you sell"
        )
        return Licence(name.lower() if alone else name, terms)
    return Licence(name, _FOLLOWS.get(name, "unknown here: read it before you publish"))


def _named(encoder: str) -> str:
    if encoder in _EXPERTS:
        return _EXPERTS[encoder]
    try:
        source = resolve(encoder)
        folder = source.folder()
    except InputError:  # code, or a path of another machine
        return "unknown"
    if isinstance(source, File):
        return FAIR
    if not isinstance(source, Published):
        return (_of_card(folder) if folder else None) or "unknown"
    timm_name = ARCHITECTURES[encoder][0] if encoder in ARCHITECTURES else encoder
    config = timm.get_pretrained_cfg(timm_name) if timm.is_model(timm_name) else None
    return (config.license if config else None) or "unknown"


def _of_card(folder: Path) -> str | None:
    """Licence that the model card in a folder states."""
    from huggingface_hub import ModelCard

    path = folder / "README.md"
    try:
        data = ModelCard.load(path, ignore_metadata_errors=True).data if path.is_file() else None
    except ValueError:
        return None
    named = data and (data.get("license_name") or data.license)
    return str(named) if named else None
