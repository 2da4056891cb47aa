"""The commands, nothing else: a file for each kind of work."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.markup import escape

from openeupe.cli.app import app
from openeupe.errors import InputError

# Importing a file of commands adds them to the application, in the order that --help shows.
# isort: off
from openeupe.cli import train
from openeupe.cli import judge
# isort: on

__all__ = ["app", "judge", "main", "train"]


def main() -> None:
    """Run a command; a user's mistake is one line and exit code 2, never a traceback."""
    try:
        app()
    except InputError as error:
        message = f"[bold red]error:[/] {escape(str(error))}"
        Console(stderr=True).print(message, soft_wrap=True, highlight=False)
        sys.exit(2)
