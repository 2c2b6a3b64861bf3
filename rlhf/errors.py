"""Errors meant for people: each one line of what, where and what next, with an exit code."""

import difflib
from collections.abc import Iterable

_JOINERS = "\u200c\u200d"


class RlhfError(Exception):
    """Base of every error a user can mend. The message is one line: what, where, what next."""

    exit_code = 4


class ConfigError(RlhfError):
    """Usage or configuration: an unknown key, file, model or campaign (exit 2)."""

    exit_code = 2


class DataError(RlhfError):
    """Input that is broken, empty, damaged or unusable (exit 3)."""

    exit_code = 3


class StageError(RlhfError):
    """A stage failed after it had begun: no disk, NaN loss, a lost process (exit 4)."""

    exit_code = 4


class GateError(RlhfError):
    """A gate refused: the stage would do more harm than good (exit 5)."""

    exit_code = 5


class PendingError(RlhfError):
    """Nothing is wrong and nothing is lost, but people have to act first: ratings are missing.

    Exit 0, since what could be done is done; the stage writes no manifest, so it is unfinished
    and the same command goes on with it.
    """

    exit_code = 0


def printable(text: str) -> str:
    """The text in one line, without what would move a terminal's cursor or cannot be written.

    Data and file names come from anywhere: an escape sequence in them must not reach a terminal,
    nor half a character a file. The joiners of Persian and of emoji stay.
    """
    line = " ".join(text.split())
    if line.isprintable():
        return line
    return "".join(one if one.isprintable() or one in _JOINERS else "\ufffd" for one in line)


def nearest_hint(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the known word closest to `word`, or nothing."""
    match = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {match[0]!r}?" if match else ""
