"""Who judges."""

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, bindparam, delete, select, update

from rlhf.errors import ConfigError, DataError
from rlhf.feedback.rules import check_text
from rlhf.feedback.store.database import decoding, insert_missing
from rlhf.feedback.store.remembering import forget, remembered
from rlhf.feedback.store.secrets import secret_hash
from rlhf.feedback.tables import (
    adjudications,
    annotators,
    assignments,
    identities,
    invites,
    judgements,
    rater_decisions,
    sessions,
    sign_in_failures,
)
from rlhf.records import Annotator, content_hash

_BY_NAME = select(annotators).where(annotators.c.name == bindparam("annotator"))


def add(connection: Connection, annotator: Annotator, now: datetime) -> Annotator:
    """The annotator of that name, made when new; DataError when `simulated` differs."""
    if not annotator.name:
        raise DataError("an annotator without a name; give each rater one")
    check_text(annotator.name, "an annotator's name")
    values = {"name": annotator.name, "simulated": annotator.simulated, "role": annotator.role}
    insert_missing(connection, annotators, [{**values, "created_at": now}])
    forget(connection)
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
    return remembered(connection, ("annotator", name), lambda: _read_row(connection, name))


def _read_row(connection: Connection, name: str) -> RowMapping:
    with decoding():
        row = connection.execute(_BY_NAME, {"annotator": name}).mappings().first()
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

    Their verdicts stay, and that they agreed to what: without a name or words they tell nothing
    of the person. All by which they signed in is removed.
    """
    row = find_row(connection, name)
    pseudonym = f"erased-{content_hash([row['id'], name, now.isoformat()])[:12]}"
    mine = judgements.c.annotator_id == row["id"]
    for column in (judgements.c.rewrite, judgements.c.rationale, judgements.c.skip):
        blank = {column.name: "", "erased_at": now}
        connection.execute(update(judgements).where(mine, column.is_not(None)).values(**blank))
    blanks: dict[str, Any] = {"given": None, "content_hash": "", "erased_at": now}
    connection.execute(update(judgements).where(mine).values(**blanks))
    _blank_reasons(connection, row["id"], now)
    _remove_sign_in(connection, row["id"], name)
    open_lease = assignments.c.annotator_id == row["id"], assignments.c.closed_at.is_(None)
    closed = {"closed_at": now, "outcome": "expired"}
    connection.execute(update(assignments).where(*open_lease).values(**closed))
    values = {"name": pseudonym, "personal": None, "erased_at": now, "password_hash": None}
    values["disabled_at"] = row["disabled_at"] or now
    connection.execute(update(annotators).where(annotators.c.id == row["id"]).values(**values))
    forget(connection)
    return pseudonym


def _blank_reasons(connection: Connection, rater: int, now: datetime) -> None:
    """Blank what a person wrote of others, and what leads wrote of them."""
    of_them = rater_decisions.c.annotator_id == rater
    written = {
        rater_decisions: of_them | (rater_decisions.c.decided_by == rater),
        adjudications: adjudications.c.decided_by == rater,
    }
    for table, theirs in written.items():
        connection.execute(update(table).where(theirs).values(reason="", erased_at=now))


def _remove_sign_in(connection: Connection, rater: int, name: str) -> None:
    for table in (identities, sessions):
        connection.execute(delete(table).where(table.c.annotator_id == rater))
    theirs = (invites.c.annotator_id == rater) | (invites.c.used_by == rater)
    connection.execute(delete(invites).where(theirs))
    failed = sign_in_failures.c.key_hash == secret_hash(f"name:{name}")
    connection.execute(delete(sign_in_failures).where(failed))


def _annotator(row: RowMapping) -> Annotator:
    if not isinstance(row["name"], str):
        raise TypeError("an annotator's name is no text")
    return Annotator(name=row["name"], simulated=row["simulated"], role=row["role"])
