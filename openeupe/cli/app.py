"""The application that the commands join, and the options that several of them share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from openeupe.cli.drawn_progress import DrawnProgress
from openeupe.errors import InputError
from openeupe.files import strict_json

if TYPE_CHECKING:  # importing torch takes seconds that --help should not
    import torch

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
# Where commands write, and look for, what has no folder of its own.
EVALUATIONS, EXPORTS = Path("evaluations"), Path("exports")
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
AsJson = Annotated[bool, typer.Option("--json", help="For machines: JSON on standard output.")]


def packaged(kind: str) -> Callable[[], list[str]]:
    """Completes the names of the files of a kind that the package carries."""

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
        bool, typer.Option("--debug", help="Show where a mistake was found, as a traceback.")
    ] = False,
) -> None:
    # No docstring: it would replace the help text that `app` has.
    pass


def print_json(content: Any) -> None:
    """What `--json` prints: strict JSON, in which a number that is no number is null."""
    print(strict_json(content))


def first_process() -> bool:
    """Whether this process may speak: of those that torchrun started, one does."""
    return os.environ.get("RANK", "0") == "0"


def one_device(name: str | None) -> torch.device:
    """The torch device of an option; by default the GPU if there is one, else the CPU."""
    from openeupe.distributed import default_device

    return torch_device(name) or default_device()


def torch_device(name: str | None) -> torch.device | None:
    """The torch device of an option; None lets the run choose, for each of its processes."""
    import torch

    if name is None:
        return None
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"--device {name} cannot be used here ({reason}): try cpu") from None
    return device
