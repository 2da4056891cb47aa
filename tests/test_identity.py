"""Identities follow from contents alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from openeupe import encoders
from openeupe.errors import InputError
from openeupe.identity import (
    encoder_identity,
    facts_identity,
    file_identity,
    files_identity,
    settings_identity,
)


def _files(root: Path, contents: dict[str, bytes]) -> list[Path]:
    for name, content in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return [root / name for name in contents]


def test_files_of_one_name_and_size_differ_by_their_bytes(tmp_path: Path) -> None:
    train = _files(tmp_path / "train", {"a/1.bmp": b"one", "b/1.bmp": b"two"})
    test = _files(tmp_path / "test", {"a/1.bmp": b"two", "b/1.bmp": b"one"})
    copy = _files(tmp_path / "copy", {"a/1.bmp": b"one", "b/1.bmp": b"two"})
    first = files_identity(tmp_path / "train", train)
    assert first == files_identity(tmp_path / "copy", copy)
    assert first != files_identity(tmp_path / "test", test)
    assert first != files_identity(tmp_path / "train", train[::-1])


def test_a_file_rewritten_in_place_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "a.bin"
    file.write_bytes(b"before")
    status = file.stat()
    before = file_identity(file)
    file.write_bytes(b"behind")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))  # as a careful copy does
    assert file_identity(file) != before


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.jpg cannot be read"):
        files_identity(tmp_path, [tmp_path / "none.jpg"])


def test_settings_and_facts() -> None:
    assert settings_identity({"a": 1, "b": 2}) == settings_identity({"b": 2, "a": 1})
    assert settings_identity({"a": 1}) != settings_identity({"a": 2})
    assert facts_identity("a", "b") != facts_identity("ab")
    assert facts_identity(["a"], "b") != facts_identity(["a", "b"])


def test_an_encoder_is_its_weights_and_its_input_constants() -> None:
    torch.manual_seed(0)
    one, other = encoders.create("resnet10t"), encoders.create("resnet10t")
    assert encoder_identity(one) != encoder_identity(other)
    other.load_state_dict(one.state_dict())
    assert encoder_identity(one) == encoder_identity(other)
    other.mean += 0.1
    assert encoder_identity(one) != encoder_identity(other)
