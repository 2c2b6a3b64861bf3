"""Who judges."""

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, select, update

from rlhf.errors import ConfigError, DataError
from rlhf.feedback.rules import check_text
from rlhf.feedback.store.database import decoding, insert_missing
from rlhf.feedback.tables import annotators, judgements
from rlhf.records import Annotator, content_hash


def add(connection: Connection, annotator: Annotator, now: datetime) -> Annotator:
    """The annotator of that name, made when new; DataError when `simulated` differs."""
    if not annotator.name:
        raise DataError("an annotator without a name; give each rater one")
    check_text(annotator.name, "an annotator's name")
    values = {"name": annotator.name, "simulated": annotator.simulated, "role": annotator.role}
    insert_missing(connection, annotators, [{**values, "created_at": now}])
    row = find_row(connection, annotator.name)
    if row["simulated"] != annotator.simulated:
        found, wanted = (
            "simulated" if simulated else "a person"
            for simulated in (row["simulated"], annotator.simulated)
        )
        raise DataError(
            f"annotator {annotator.name!r} is {found} in the store, not {wanted}; use another name"
        )
    return _annotator(row)


def find_row(connection: Connection, name: str) -> RowMapping:
    """The row of an annotator; ConfigError when there is none of that name."""
    query = select(annotators).where(annotators.c.name == name)
    with decoding():
        row = connection.execute(query).mappings().first()
    if row is None:
        raise ConfigError(f"no annotator {name!r} in the store; add them first")
    return row


def every(connection: Connection) -> list[Annotator]:
    """All annotators, oldest first."""
    with decoding():
        rows = connection.execute(select(annotators).order_by(annotators.c.id)).mappings().all()
        return [_annotator(row) for row in rows]


def erase(connection: Connection, name: str, now: datetime) -> str:
    """Blank all that a person wrote and their name, at their request; the name put instead.

    Their verdicts stay: without a name or words they tell nothing of the person.
    """
    row = find_row(connection, name)
    pseudonym = f"erased-{content_hash([row['id'], name, now.isoformat()])[:12]}"
    mine = judgements.c.annotator_id == row["id"]
    for column in (judgements.c.rewrite, judgements.c.rationale, judgements.c.skip):
        blank = {column.name: "", "erased_at": now}
        connection.execute(update(judgements).where(mine, column.is_not(None)).values(**blank))
    blanks: dict[str, Any] = {"given": None, "content_hash": "", "erased_at": now}
    connection.execute(update(judgements).where(mine).values(**blanks))
    values = {"name": pseudonym, "personal": None, "erased_at": now}
    connection.execute(update(annotators).where(annotators.c.id == row["id"]).values(**values))
    return pseudonym


def _annotator(row: RowMapping) -> Annotator:
    if not isinstance(row["name"], str):
        raise TypeError("an annotator's name is no text")
    return Annotator(name=row["name"], simulated=row["simulated"], role=row["role"])
