"""Pixels -> Tokens: teachers, proxy and students are all encoders."""

from __future__ import annotations

from openeupe.encoders.create import create, names
from openeupe.encoders.encoder import Encoder, Tokens, check_resolution, evaluating
from openeupe.encoders.openeupe_folder import read_config, save
from openeupe.encoders.resolver import is_published, load, resolve

__all__ = [
    "Encoder",
    "Tokens",
    "check_resolution",
    "create",
    "evaluating",
    "is_published",
    "load",
    "names",
    "read_config",
    "resolve",
    "save",
]
