from __future__ import annotations

import pytest

from openeupe.data.string_array import Names, printable


def test_names_come_back() -> None:
    given = ["", "a.jpg", "ordner/ä ö.png", "bytes-\udcff", "日本"]
    names = Names(iter(given))
    assert len(names) == 5
    assert [names[i] for i in range(5)] == given
    for outside in (5, -1):
        with pytest.raises(IndexError):
            names[outside]


def test_printable_is_one_line_of_unicode() -> None:
    assert printable("a\n\udcff") == "a\\n\\udcff"
