"""Hardware and package versions of results."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from openeupe.evaluation.records import Machine


def machine() -> Machine:
    """Versions, commit and hardware of this process."""
    packages = {}
    for package in ("openeupe", "torch", "torchvision", "timm", "numpy", "transformers"):
        try:
            packages[package] = version(package)
        except PackageNotFoundError:
            continue
    accelerator = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return Machine(
        git_hash=commit(Path(__file__)),
        packages=packages,
        hardware=accelerator or f"{platform.machine()}, {torch.get_num_threads()} threads",
        python=platform.python_version(),
    )


def commit(file: Path) -> str | None:
    """The commit of a source file. It ends in "-dirty" if tracked files were changed.

    None for a file that git does not track: an installed package may be in another repository.
    """

    def git(*words: str) -> str | None:
        command = ["git", "-C", str(file.parent), *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else None

    try:
        found = git("rev-parse", "HEAD") if git("ls-files", "--error-unmatch", file.name) else None
        dirty = found and git("status", "--porcelain", "--untracked-files=no")
    except OSError:
        return None
    return f"{found}-dirty" if dirty else found
