"""What people read of an error is one line that moves no cursor."""

import pytest

from rlhf.cli import one_line
from rlhf.errors import DataError, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\n\tb  c", "a b c"),
        ("\x1b[31mred\x07", "\ufffd[31mred\ufffd"),
        ("turned \u202e round", "turned \ufffd round"),
        ("half \ud800", "half \ufffd"),
        ("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 \u00e9", None),  # Persian has joiners
    ],
)
def test_only_what_can_be_shown_is_left(text: str, shown: str | None):
    assert printable(text) == (text if shown is None else shown)
    assert one_line(DataError(text)) == printable(text)
