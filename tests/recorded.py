"""Records what a program does to its files, and says what a power cut at any moment would leave.

A file is on the disk once it was flushed after its last write; a name once its folder was flushed
after the rename. Nothing else is promised by a file system.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest


@dataclass
class Disk:
    """Events in order: ("flush" | "rename" | "remove", path, [new path])."""

    root: Path
    events: list[tuple[str, Path, Path | None]] = field(default_factory=list)

    def watch(self, patch: pytest.MonkeyPatch) -> None:
        """Record the calls of `os` and `shutil` that matter."""

        def watched(owner: Any, name: str, note: Callable[..., None]) -> None:
            original = getattr(owner, name)

            def call(*given: Any, **named: Any) -> Any:
                note(*given)
                return original(*given, **named)

            patch.setattr(owner, name, call)

        def flushed(handle: int) -> None:
            self._add("flush", Path(os.readlink(f"/proc/self/fd/{handle}")))

        watched(os, "fsync", flushed)
        for name in ("rename", "replace"):
            watched(os, name, lambda old, new, **_: self._add("rename", Path(old), Path(new)))
        for name in ("unlink", "remove"):
            watched(os, name, lambda path, **_: self._add("remove", Path(path)))
        watched(shutil, "rmtree", lambda path, *_: self._add("remove", Path(path)))

    def _add(self, kind: str, path: Path, new: Path | None = None) -> None:
        if path.is_absolute() and path.is_relative_to(self.root) and path.exists():
            self.events.append((kind, path, new))

    def first(self, kind: str, path: Path) -> int:
        """Number of the first event of a kind at a path (a rename: to it); fails without one."""
        for number, (what, old, new) in enumerate(self.events):
            if what == kind and (new if kind == "rename" else old) == path:
                return number
        raise AssertionError(f"no {kind} of {path} among {self.events}")

    def settled(self, path: Path) -> int:
        """The event after which the file `path` survives a power cut; checks that there is one.

        It must be flushed before it is renamed, and its folder after that.
        """
        names, place = [path], path
        renamed = 0
        for number, (what, old, new) in enumerate(self.events):
            if what == "rename" and new is not None and (new == place or new in place.parents):
                renamed = number
                names.append(old / place.relative_to(new))
        assert renamed, f"{path} is written in its place: a power cut leaves half of it"
        contents = [n for n, (what, old, _) in enumerate(self.events)
                    if what == "flush" and old in names and n < renamed]  # fmt: skip
        assert contents, f"{path} is renamed before its content is flushed"
        after = [n for n, (what, old, _) in enumerate(self.events)
                 if what == "flush" and n > renamed and old in path.parents]  # fmt: skip
        assert after, f"the folder of {path} is not flushed after the rename"
        return after[0]
