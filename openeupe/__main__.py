"""`python -m openeupe`, for torchrun."""

from openeupe.cli import main

main()
