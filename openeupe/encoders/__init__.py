"""Pixels -> Tokens: teachers, proxy and students are all encoders."""

from __future__ import annotations

from openeupe.encoders.contract import Encoder, Tokens, check_side
from openeupe.encoders.create import create, names
from openeupe.encoders.folder import load, read_config, save

__all__ = ["Encoder", "Tokens", "check_side", "create", "load", "names", "read_config", "save"]
