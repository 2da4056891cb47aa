"""Memory-compact, fork-safe array of strings."""

from __future__ import annotations

from array import array
from collections.abc import Iterable

import numpy as np


class Names:
    """An immutable list of strings in one block of bytes.

    Loader workers share it after a fork: a list of `str` would be copied page by page, because
    looking at a Python object writes its reference count.
    """

    def __init__(self, names: Iterable[str]) -> None:
        text, ends = bytearray(), array("q", [0])
        for name in names:
            text += name.encode("utf-8", "surrogatepass")  # file names may hold any bytes
            ends.append(len(text))
        self._text = np.frombuffer(bytes(text), dtype=np.uint8)
        self._ends = np.frombuffer(ends, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> str:
        if not 0 <= index < len(self):
            raise IndexError(index)
        piece = self._text[self._ends[index] : self._ends[index + 1]]
        return piece.tobytes().decode("utf-8", "surrogatepass")


def printable(name: str) -> str:
    """Format a file name as one line of valid Unicode."""
    return name.encode("utf-8", "backslashreplace").decode().replace("\n", "\\n")
