"""The command line."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from io import TextIOWrapper

from rich.text import Text

from openeupe.cli.app import app, errors, first_process
from openeupe.cli.mistakes import as_mistake, bug
from openeupe.errors import one_line
from openeupe.known_warnings import ignore_known_warnings
from openeupe.stopping import Stopped, stop_at_once, stopped_by

# Importing a file of commands adds them to the application, in the order that --help shows.
# isort: off
from openeupe.cli import curate
from openeupe.cli import quickstart
from openeupe.cli import train
from openeupe.cli import evaluate
from openeupe.cli import ablate
from openeupe.cli import look
from openeupe.cli import export
from openeupe.cli import share
# isort: on

__all__ = [
    "ablate",
    "app",
    "curate",
    "evaluate",
    "export",
    "look",
    "main",
    "quickstart",
    "share",
    "train",
]


def main() -> None:
    """Run a command. Invalid input gives one line and exit code 2, a bug exit code 1.

    `--debug` adds the traceback. If the reader of the output goes away (`| head`), the command
    ends silently.
    """
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # print names that are not valid UTF-8
            stream.reconfigure(errors="backslashreplace")
    threading.excepthook = _thread_failed
    ignore_known_warnings()
    stop_at_once()
    try:
        try:
            app([word for word in arguments if word != "--debug"])
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # else the interpreter's end complains
        sys.exit(141)
    except (Stopped, Exception) as error:
        if stopped := stopped_by(error):
            _say_stopped(stopped)
            sys.exit(128 + stopped.signum)
        mistake = as_mistake(error)
        if debug or mistake is None:
            traceback.print_exc()
        who = "" if first_process() else f"process {os.environ['RANK']}: "
        message = Text("error: ", "bold red")
        message.append(f"{who}{mistake or one_line(bug(error))}", "not bold default")
        errors.print(message, soft_wrap=True, highlight=False)
        sys.exit(2 if mistake else 1)


def _say_stopped(stopped: Stopped) -> None:
    if first_process():
        where = f" at {stopped.where}" if stopped.where else ""
        name = signal.Signals(stopped.signum).name
        message = f"stopped by {name}{where}: run the same command again to resume"
        errors.print(message, soft_wrap=True, highlight=False, markup=False)


def _thread_failed(failed: threading.ExceptHookArgs) -> None:
    """Report a failed thread, unless the main thread reports it: TensorBoard's OSError."""
    if not isinstance(failed.exc_value, OSError):
        threading.__excepthook__(failed)
