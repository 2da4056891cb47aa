"""Error for invalid user input: one line with the problem and the fix."""

from __future__ import annotations

from openeupe.limits import MESSAGE_CHARACTERS


class InputError(Exception):
    """Invalid input: a file, field, option or environment.

    The command line prints the message as one line and exits with 2; no traceback.
    Write it as "what is wrong (which file or field): what to do about it". Control characters of
    names and values are escaped, and a long message loses its middle.
    """

    def __init__(self, message: object) -> None:
        super().__init__(one_line(str(message)))


def one_line(text: str) -> str:
    """Format `text` as one printable line of limited length."""
    if len(text) > MESSAGE_CHARACTERS:
        half = MESSAGE_CHARACTERS // 2
        text = f"{text[:half]} [...] {text[-half:]}"
    text = text.encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
