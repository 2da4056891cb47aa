"""Files that are written whole or not at all, also when the machine is switched off."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any


def strict_json(content: Any) -> str:
    """Indented JSON of plain data, in which a number that is no finite number is null."""
    return json.dumps(_finite(content), indent=2, allow_nan=False)


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {str(key): _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def write_atomically(path: Path, text: str) -> None:
    """Write a small text file whole or not at all."""
    partial = path.with_name(f".{path.name}.writing")
    partial.write_text(text, encoding="utf-8")
    flush(partial)
    partial.replace(path)


def flush(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    if path.is_dir() and os.name == "nt":  # Windows has no handle for a folder
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
