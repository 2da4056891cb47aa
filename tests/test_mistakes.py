"""Whatever the system refuses is one line with the file and the fix; a bug stays a bug."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from safetensors import SafetensorError

from openeupe.cli import main

from .tiny_recipe import write_recipe


def ran(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object
) -> tuple[int, str]:
    """Exit code and standard error of a command, run in this process."""
    monkeypatch.setattr(sys, "argv", ["openeupe", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0), capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "x", "/some/file"), "error: /some/file: No space left"),
        (PermissionError(errno.EACCES, "x", "/some/file"), "change its permissions"),
        (FileNotFoundError(errno.ENOENT, "x", "/some/file"), "check the path"),
        (OSError(errno.EIO, "x", b"/some/\xfffile"), "/some/"),
        (OSError(errno.EXDEV, "x", "/a", None, "/b"), "/a -> /b"),
        (OSError("something odd"), "error: something odd"),
        (SafetensorError("I/O error: No space left on device (os error 28)"), "No space left"),
        (MemoryError(), "memory is used up"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "memory is used up"),
        (UnicodeEncodeError("utf-8", "\udcff", 0, 1, "surrogates"), "not valid UTF-8"),
    ],
)
def test_what_the_system_refuses_is_one_line(
    error: Exception,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object, **__: object) -> Any:
        raise error

    monkeypatch.setattr("openeupe.api.distill.load_recipe", fail)
    code, told = ran(monkeypatch, capsys, "plan", "eupe")
    assert code == 2
    assert words in told
    assert told.count("\n") == 1


def test_a_bug_is_not_called_a_mistake(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> Any:
        raise KeyError("lost")

    monkeypatch.setattr("openeupe.api.distill.load_recipe", fail)
    code, told = ran(monkeypatch, capsys, "plan", "eupe")
    assert code == 1
    assert "a bug in openeupe: KeyError: 'lost' at test_mistakes.py" in told
    assert "Traceback" in told


def _photos(folder: Path, *names: bytes) -> Path:
    folder.mkdir()
    for name in names:
        with open(os.fsencode(folder) + b"/" + name, "wb") as file:
            Image.radial_gradient("L").resize((64, 64)).save(file, "PNG")
    return folder


def test_names_that_others_would_interpret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Formulas of matplotlib, markup of rich, lines of a terminal, and no valid UTF-8."""
    names = (rb"$\frac{x.png", b"y].png", b"[bold]z.png", b"a\nb.png", b"\xff.png", b"_.png")
    folder = _photos(tmp_path / "photos $ [", *names)
    out = tmp_path / "out [z]"
    code, told = ran(monkeypatch, capsys, "look", "raw_pixels", folder, "--out", out,
                     "--only", "pca,norms", "--resolution", "64", "--limit", "6")  # fmt: skip
    assert code == 0, told
    assert list(out.iterdir())


@pytest.mark.parametrize("command", ["plan", "look", "distill", "evaluate", "save"])
def test_a_file_in_the_place_of_a_folder(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    photos = _photos(tmp_path / "photos", b"a.png", b"b.png")
    arguments = {
        "plan": ["plan", tmp_path],
        "look": ["look", "raw_pixels", photos, "--out", file / "in"],
        "distill": ["distill", "quickstart", f"data.sources.0.path={photos}", "--run", file / "in"],
        "evaluate": ["evaluate", "raw_pixels", "--only", "knn", "--out", file / "in"],
        "save": ["save", "raw_pixels", file / "in"],
    }[command]
    code, told = ran(monkeypatch, capsys, *arguments)
    assert code == 2
    assert told.count("\n") == 1, told


def test_a_reader_that_goes_away_ends_the_command_silently(tmp_path: Path) -> None:
    for command in ("--help", f"plan {write_recipe(tmp_path, 2)} --json"):
        script = f"{sys.executable} -m openeupe {command} | head -c 1"
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
        assert done.stderr == ""
