"""Count unreadable images, and stop at too many."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from openeupe.errors import InputError

_ALWAYS_ALLOWED = 10  # a small set may hold a few broken files whatever the share
_NAMED = 10


class BrokenImages:
    """Distinct unreadable images of a run.

    Args:
        max_broken: largest share of the images drawn that may be broken.
    """

    def __init__(self, max_broken: float) -> None:
        self.max_broken = max_broken
        self.drawn = 0
        self.names: dict[str, None] = {}  # a set that remembers its order

    def add(self, names: Iterable[str], drawn: int) -> None:
        """Count `drawn` more images, of which those named could not be read.

        Raises:
            InputError: naming some, if more than 10 distinct images and more than `max_broken`
                of all drawn are broken.
        """
        self.drawn += drawn
        self.names.update(dict.fromkeys(names))
        if len(self.names) > max(_ALWAYS_ALLOWED, self.max_broken * self.drawn):
            some = "; ".join(list(self.names)[:_NAMED])
            raise InputError(
                f"{len(self.names)} images of {self.drawn} drawn cannot be read, more than "
                f"data.max_broken = {self.max_broken:g} allows: replace or remove them, "
                f"or raise data.max_broken. Some are: {some}"
            )

    def state(self) -> dict[str, Any]:
        """State for a checkpoint, as plain JSON."""
        return {"drawn": self.drawn, "names": list(self.names)}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned."""
        self.drawn = int(state["drawn"])
        self.names = dict.fromkeys(state["names"])
