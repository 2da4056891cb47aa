"""The application and the options that several commands share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from openeupe.cli.drawn_progress import DrawnProgress
from openeupe.files import strict_json

if TYPE_CHECKING:
    from openeupe.table import Table

app = typer.Typer(
    add_completion=True,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Make efficient universal perception encoders: experts -> proxy teacher -> student.",
    epilog="Exit codes: 0 done; 2 invalid input (one-line message); 130 "
    "interrupted, 143 terminated; 1 anything else. With --json, standard output holds nothing but "
    "JSON.",
)
# Colours only on a terminal, and never where NO_COLOR is set. Names are no markup: `[/y].jpg`.
console = Console(markup=False, emoji=False)
errors = Console(stderr=True, markup=False, emoji=False)
progress, error_progress = DrawnProgress(console), DrawnProgress(errors)

Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Settings to change: stages.proxy.steps=100"),
]
RunFolder = Annotated[
    Path | None, typer.Option("--run", help="Run folder.  [default: runs/NAME]", show_default=False)
]
AllowCode = Annotated[
    bool,
    typer.Option("--allow-code", help="Run the functions that `python:` encoders name."),
]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1, ...  [default: cuda if there is one]")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]


def packaged(kind: str) -> Callable[[], list[str]]:
    """Completion of the names of packaged files of a kind."""

    def names() -> list[str]:
        from openeupe.config import packaged_names

        return packaged_names(kind)

    return names


def _show_version(wanted: bool) -> None:
    if wanted:
        from openeupe.version import package_version

        print(f"openeupe {package_version()}")
        raise typer.Exit


@app.callback()
def openeupe(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True),
    ] = False,
    debug: Annotated[  # read by `main`, which takes it anywhere on the line
        bool, typer.Option("--debug", help="Show a traceback for invalid input.")
    ] = False,
) -> None:
    # No docstring: it would replace the help text that `app` has.
    pass


def print_json(content: Any) -> None:
    """Print strict JSON; numbers that are not finite become null."""
    print(strict_json(content))


def first_process() -> bool:
    """Whether this process prints: the first one of a torchrun job does."""
    return os.environ.get("RANK", "0") == "0"


def show(table: Table) -> None:
    """Draw a table on the console, with its notes below."""
    from rich import box
    from rich.table import Table as Drawn

    title = table.title or None
    drawn = Drawn(box=box.SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False)
    for place, name in enumerate(table.header):
        drawn.add_column(name, justify="right" if place else "left", overflow="fold")
    for row in table.rows:
        drawn.add_row(*row)
    console.print(drawn)
    for note in table.notes:
        console.print(note, soft_wrap=True, highlight=False)
