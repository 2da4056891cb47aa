"""OpenEUPE-mini for the package: python -m experiments.release_mini RUN/STAGE/STUDENT DATA OUT

Weights are the mean of the student's and of EfficientNet-Lite0's, from which it started (WiSE-FT,
arXiv 2109.01903: that keeps what the start knew and the training photos do not show), rounded to
16-bit floats. What is evaluated (docs/suites/claim.yaml on DATA) and told on the card is
this encoder. Adapter heads stay behind: they are larger than it. What `openeupe compare` then says
against its experts is written into the card by hand.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from safetensors.torch import load_file, save_file
from torch import Tensor

from openeupe import encoders
from openeupe.cli.drawn_progress import DrawnProgress
from openeupe.distillation.chain import load_with_chains
from openeupe.evaluation.benchmark import EvaluatedEncoder
from openeupe.evaluation.features import Features
from openeupe.evaluation.suite import evaluate, load_suite
from openeupe.identity import encoder_identity
from openeupe.share.saving import save

_SUITE = Path(__file__).parent.parent / "docs/suites/claim.yaml"


_LIMITS = """
## Limits

From minutes of training on two CPU cores and some 2,000 photos under CC BY 4.0 (Caltech-101: one
object each), as they are and with words drawn over them. Nothing was measured on people, medical
or aerial pictures, nor above 256 pixels. How it was chosen, and how it stands against its experts:
docs/claim.md. The weights are the mean of the stage's result and of EfficientNet-Lite0's.
"""


def main(student: Path, data: Path, out: Path) -> None:
    with tempfile.TemporaryDirectory() as place:
        run = Path(place) / "run"
        shutil.copytree(student.parent.parent, run, ignore=shutil.ignore_patterns("teacher_cache"))
        rounded = run / student.parent.name / student.name
        start = encoders.create("efficientnet_lite0", pretrained=True).state_dict()
        _rewrite(
            rounded / "model.safetensors", lambda name, w: ((w + start[name]) / 2).half().float()
        )
        encoder, chains = load_with_chains(str(rounded))
        suite = load_suite(str(_SUITE))
        folder = rounded / "evaluations" / suite.name
        progress = DrawnProgress(Console())
        evaluated = EvaluatedEncoder(encoder, Features(encoder), chains, folder, progress)
        evaluate(suite, evaluated, folder, root=data, source="openeupe-mini", progress=progress)
        for beside in ("heads.safetensors", "statistics.safetensors"):
            (rounded / beside).unlink()
        save(str(rounded), out)
    _rewrite(out / "model.safetensors", lambda _, weight: weight.half())
    with (out / "README.md").open("a", encoding="utf-8") as card:
        card.write(_LIMITS)
    if encoder_identity(encoders.load(out)) != encoder_identity(encoder):
        raise SystemExit(f"{out} is not what was evaluated")


def _rewrite(path: Path, change: Callable[[str, Tensor], Tensor]) -> None:
    """Change weights by name; counters of batches stay whole numbers."""
    weights = load_file(path)
    save_file({k: change(k, v) if v.is_floating_point() else v for k, v in weights.items()}, path)


if __name__ == "__main__":
    main(*(Path(word) for word in sys.argv[1:]))
