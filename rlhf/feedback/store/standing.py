"""Which judgements stand: those that no later one supersedes."""

from sqlalchemy import ColumnElement, select

from rlhf.feedback.tables import judgements


def standing() -> ColumnElement[bool]:
    """The SQL condition that a row of `judgements` has not been superseded."""
    later = judgements.alias("later")
    return ~select(later.c.seq).where(later.c.supersedes == judgements.c.id).exists()
