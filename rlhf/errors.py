"""Errors meant for people: each one line of what, where and what next, with an exit code."""

import difflib
from collections.abc import Iterable


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


def nearest_hint(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the known word closest to `word`, or nothing."""
    match = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {match[0]!r}?" if match else ""
