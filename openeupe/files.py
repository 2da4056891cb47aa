"""Files: written whole or not at all, also when the machine is switched off; and their names."""

from __future__ import annotations

import json
import math
import os
import re
from pathlib import Path
from typing import Any


def strict_json(content: Any) -> str:
    """Indented JSON of plain data and NumPy's numbers; what is no finite number becomes null."""
    return json.dumps(_finite(content), indent=2, allow_nan=False)


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {str(key): _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    if hasattr(content, "item"):
        content = content.item()
    return None if isinstance(content, float) and not math.isfinite(content) else content


def read_mapping(path: Path) -> dict[str, Any]:
    """The mapping in a JSON file; an empty one where it is missing, damaged or holds another thing.

    For files that somebody else may have written, or that may be half written.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def folder_name(source: str) -> str:
    """What a folder is called after an encoder's name or address: `hf-hub:A/B` -> `hf-hub_A_B`."""
    return re.sub(r"[^\w.-]+", "_", source)


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
