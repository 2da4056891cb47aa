"""The public Python API: each command is one call of a function here."""

from pathlib import Path

# Where the functions write, and look for, what has no folder of its own.
RUNS, STUDIES = Path("runs"), Path("studies")
EVALUATIONS, EXPORTS = Path("evaluations"), Path("exports")
