"""The public Python API: each command is one call of a function here."""
