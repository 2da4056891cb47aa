"""Convert system errors to one-line messages, and report bugs."""

from __future__ import annotations

import errno
import os
import re
import traceback
from pathlib import Path

from openeupe.errors import InputError
from openeupe.extras import missing_extra

_FIXES = {
    errno.ENOSPC: "free space and run the same command again",
    errno.EDQUOT: "free space and run the same command again",
    errno.EFBIG: "raise the limit (ulimit -f) or use another file system",
    errno.EACCES: "change its permissions or name another place",
    errno.EPERM: "change its permissions or name another place",
    errno.EROFS: "name another place",
    errno.ENOENT: "check the path, and whether something removed it meanwhile",
    errno.ENOTDIR: "a part of the path is a file: name another place",
    errno.EISDIR: "it is a folder: name a file",
    errno.EEXIST: "name another place",
    errno.ENOTEMPTY: "name another place",
    errno.ENAMETOOLONG: "use a shorter name",
    errno.ELOOP: "remove the circle of links",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "close other programs: the system has too many files open",
    errno.EIO: "check the disk",
    errno.ESTALE: "check the network disk and run the same command again",
    errno.ENOMEM: "use smaller batches, fewer workers or a smaller network",
}
_NO_MEMORY = ("can't allocate memory", "out of memory", "Cannot allocate memory")


def as_mistake(error: BaseException) -> InputError | None:
    """Convert a system or memory error to an `InputError`. None for other errors."""
    if isinstance(error, InputError):
        return error
    if isinstance(error, ModuleNotFoundError):
        return missing_extra(error)
    text = str(error)
    if isinstance(error, MemoryError) or any(words in text for words in _NO_MEMORY):
        return InputError(f"the memory is used up: {_FIXES[errno.ENOMEM]}")
    if isinstance(error, UnicodeError):
        return InputError(f"a name or text is not valid UTF-8 ({text}): rename or convert it")
    number = error.errno if isinstance(error, OSError) else None
    if found := re.search(r"\(os error (\d+)\)", text):  # as readers written in Rust write it
        number = int(found[1])
    if number is None:
        return InputError(text or type(error).__name__) if isinstance(error, OSError) else None
    names = (getattr(error, "filename", None), getattr(error, "filename2", None))
    where = " -> ".join(os.fsdecode(name) for name in names if isinstance(name, str | bytes))
    fix = _FIXES.get(number, "check it and run the same command again")
    return InputError(f"{where or 'a file'}: {os.strerror(number)}: {fix}")


def bug(error: BaseException) -> str:
    """Message for a bug in OpenEUPE."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return (
        f"a bug in openeupe: {type(error).__name__}: {error}{where}. Please report it, with what "
        "--debug prints"
    )
