"""Which judgements stand: those that no later one supersedes, and that were not taken back."""

from sqlalchemy import ColumnElement, select

from rlhf.feedback.rules import UNDONE
from rlhf.feedback.tables import judgements

_later = judgements.alias("later")
_NOT_SUPERSEDED = ~select(_later.c.seq).where(_later.c.supersedes == judgements.c.id).exists()


def standing() -> ColumnElement[bool]:
    """The SQL condition that a row of `judgements` has not been superseded."""
    return _NOT_SUPERSEDED


def taken_back() -> ColumnElement[bool]:
    """The SQL condition that a row only says that the one it supersedes was taken back."""
    return judgements.c.skip == UNDONE


def not_taken_back() -> ColumnElement[bool]:
    """The SQL condition that a row says more than that an earlier one was taken back."""
    return judgements.c.skip.is_(None) | (judgements.c.skip != UNDONE)
