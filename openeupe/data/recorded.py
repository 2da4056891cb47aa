"""Identify the images of a run: recorded at its start, compared on resume."""

from __future__ import annotations

from collections.abc import Sequence

from openeupe.data.sources import Source
from openeupe.identity import bytes_identity, facts_identity, listing_identity

_READ = 1024  # images of a source whose contents are read: a second or two, and all of a small set


def image_sets(sources: Sequence[Source]) -> list[dict[str, object]]:
    """Identify the images of each source, as plain data.

    Names and sizes of all images, and the contents of up to 1,024 that are evenly spaced: reading
    all of a large set would take hours. Caches of teacher outputs compare every image when it
    is trained on.
    """
    return [_image_set(source) for source in sources]


def _image_set(source: Source) -> dict[str, object]:
    count = len(source)
    read = min(count, _READ)
    contents = [content(source, number * count // read) for number in range(read)]
    return {
        "images": count,
        "names and sizes": listing_identity(source.listing()),
        "contents": facts_identity(*contents),
    }


def content(source: Source, index: int) -> str:
    """Identity of an image's encoded bytes; empty where they cannot be read."""
    try:
        return bytes_identity(source.encoded(index))
    except OSError:
        return ""


def changed(before: Sequence[dict[str, object]], now: Sequence[dict[str, object]]) -> str | None:
    """Describe how the images differ from the recorded ones. None if they do not."""
    if len(before) != len(now):
        return f"{len(before)} sources then, {len(now)} now"
    for number, (then, here) in enumerate(zip(before, now, strict=True)):
        if then["images"] != here["images"]:
            return f"data.sources.{number}: {then['images']} images then, {here['images']} now"
        for what in ("names and sizes", "contents"):
            if then[what] != here[what]:
                return f"data.sources.{number}: {what} of images have changed"
    return None
