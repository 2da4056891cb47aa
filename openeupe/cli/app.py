"""The application that the commands join, and the options that several of them share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from openeupe.errors import InputError

if TYPE_CHECKING:  # importing torch takes seconds that --help should not
    import torch

app = typer.Typer(
    add_completion=True,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Make efficient universal perception encoders: experts -> proxy teacher -> student.",
)
console = Console()

Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Settings to change: stages.proxy.steps=100"),
]
RunFolder = Annotated[
    Path | None, typer.Option("--run", help="Run folder.  [default: runs/NAME]", show_default=False)
]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1, ...  [default: cuda if there is one]")
]


def torch_device(name: str | None) -> torch.device | None:
    """The torch device of an option; None lets the run choose."""
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
