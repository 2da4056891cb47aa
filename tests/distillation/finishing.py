"""What says that a stage has ended, for students that a test made without training."""

from __future__ import annotations

import json
from pathlib import Path

from openeupe.encoders.run_layout import FINISHED
from openeupe.identity import file_identity


def write_ending(stage: Path) -> None:
    """Write the file, with the digests of all students that lie in the stage's folder."""
    files = sorted(file for file in stage.glob("*/*") if file.is_file())
    digests = {file.relative_to(stage).as_posix(): file_identity(file) for file in files}
    (stage / FINISHED).write_text(json.dumps({"files": digests}))
