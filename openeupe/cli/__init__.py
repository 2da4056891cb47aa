"""The commands, nothing else: a file for each kind of work."""

from __future__ import annotations

import os
import sys
import traceback

from rich.markup import escape

from openeupe.cli.app import app, errors, first_process
from openeupe.errors import InputError

# Importing a file of commands adds them to the application, in the order that --help shows.
# isort: off
from openeupe.cli import curate
from openeupe.cli import train
from openeupe.cli import judge
from openeupe.cli import ablate
from openeupe.cli import look
from openeupe.cli import ship
from openeupe.cli import share
# isort: on

__all__ = ["ablate", "app", "curate", "judge", "look", "main", "share", "ship", "train"]


def main() -> None:
    """Run a command; a user's mistake is one line and exit code 2, and a traceback if asked for."""
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    try:
        app([word for word in arguments if word != "--debug"])
    except InputError as error:
        if debug:
            traceback.print_exc()
        who = "" if first_process() else f"process {os.environ['RANK']}: "
        message = f"[bold red]error:[/] {who}{escape(str(error))}"
        errors.print(message, soft_wrap=True, highlight=False)
        sys.exit(2)
