"""Package, docs and README use the field's words, and no private ones."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXT = {".py", ".yaml", ".html", ".js", ".css", ".md"}
FILES = [
    *(p for p in sorted((ROOT / "openeupe").rglob("*")) if p.suffix in TEXT),
    *(p for p in sorted((ROOT / "docs").rglob("*")) if p.suffix in TEXT),
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
]
# word of before -> what to write instead; matched as whole words, in names with underscores too
INSTEAD = {
    r"says|tells|told|said|speaks of|tells? apart": "returns, reports, contains, shows",
    r"beside": "next to, with, in addition to",
    r"alike|as a whole|by (?:itself|themselves)": "the same, similar, together, separately",
    r"h[eo]lds? against|held against": "compare with",
    r"the world|whoever|what came of it": "the thing's name",
    r"fate|manners|estate": "status, conventions",
    r"mend|mended": "fix, fixed",
    r"kept apart": "held out, separate",
    r"taught|teach|teaches|learns from": "distil, distilled from, trained on",
    r"judge|judges|judged|judgements?": "evaluate, evaluation",
    r"heap": "image pool",
    r"heads first": "backbone frozen first (freeze_backbone_steps)",
    r"anew": "again",
    r"go on|goes on|going on|went on|gone on": "continue, resume",
    r"figures to reach": "results to reach",
    r"leniency|leniently": "strictly",
}
# An image is a photo only in contrast to a rendered one. Code and paths may be named so.
PHOTO = re.compile(r"\bphotos?\b", re.IGNORECASE)
PHOTOGRAPHS = {"docs/evaluation.md"}  # words over photos, next to procedural scenes


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_private_words_stay_out(path: Path) -> None:
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        for words, instead in INSTEAD.items():
            if match := re.search(rf"(?<![A-Za-z])(?:{words})(?![A-Za-z])", line, re.IGNORECASE):
                found.append(f"line {number}: {match[0]!r}: write {instead}")
    assert found == []


def test_images_are_called_images() -> None:
    found = []
    for path in FILES:
        name = path.relative_to(ROOT).as_posix()
        if name in PHOTOGRAPHS or not name.startswith(
            ("openeupe/visualization", "openeupe/report", "docs", "README")
        ):
            continue
        text = re.sub(r"```.*?```|`[^`]*`", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        found += [f"{name}: {line.strip()}" for line in text.splitlines() if PHOTO.search(line)]
    assert found == []
