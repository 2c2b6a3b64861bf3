"""What must hold of accounts, consents, and what leads decided."""

from collections.abc import Iterator
from typing import get_args

from sqlalchemy import Connection, func, or_, select

from rlhf.feedback.store.records import Role
from rlhf.feedback.tables import (
    adjudications,
    annotators,
    consents,
    identities,
    invites,
    judgements,
    rater_decisions,
    sessions,
)
from rlhf.records import content_hash


def problems(connection: Connection) -> Iterator[str]:
    """Every broken invariant of people and decisions, a line each."""
    yield from _account_problems(connection)
    yield from _erasure_problems(connection)
    yield from _invite_problems(connection)
    yield from _decision_problems(connection)
    yield from _adjudication_problems(connection)


def _account_problems(connection: Connection) -> Iterator[str]:
    known_by = [
        select(table).where(table.c.annotator_id == annotators.c.id).exists()
        for table in (identities, sessions)
    ]
    signs_in = or_(annotators.c.password_hash.is_not(None), *known_by)
    query = select(annotators, signs_in.label("signs_in")).order_by(annotators.c.id)
    for row in connection.execute(query).mappings():
        where = f"annotator {row['name']!a}"
        if row["role"] not in get_args(Role):
            yield f"{where}: of role {row['role']!a}, which there is not"
        if row["simulated"] and row["signs_in"]:
            yield f"{where}: simulated, and yet can sign in"


def _erasure_problems(connection: Connection) -> Iterator[str]:
    """What is left of people who were erased."""
    erased = select(annotators.c.id, annotators.c.name).where(annotators.c.erased_at.is_not(None))
    left = {
        "a password": select(annotators.c.id).where(annotators.c.password_hash.is_not(None)),
        "personal data": select(annotators.c.id).where(annotators.c.personal.is_not(None)),
        "an identity": select(identities.c.annotator_id),
        "a session": select(sessions.c.annotator_id),
        "an invite": select(invites.c.annotator_id).where(invites.c.annotator_id.is_not(None)),
        "words": select(judgements.c.annotator_id).where(
            (func.coalesce(judgements.c.rationale, "") != "")
            | (func.coalesce(judgements.c.rewrite, "") != "")
            | (func.coalesce(judgements.c.skip, "") != "")
        ),
        "a reason": select(rater_decisions.c.annotator_id).where(rater_decisions.c.reason != ""),
    }
    for what, theirs in left.items():
        for row in connection.execute(erased.where(annotators.c.id.in_(theirs))):
            yield f"annotator {row.name!a}: erased, and yet {what} is there"


def _invite_problems(connection: Connection) -> Iterator[str]:
    wrong = (invites.c.used_at.is_(None) != invites.c.used_by.is_(None)) | (
        invites.c.used_at.is_not(None) & invites.c.revoked_at.is_not(None)
    )
    for key in connection.execute(select(invites.c.id).where(wrong)).scalars():
        yield f"invite {key}: used by nobody, or used and withdrawn"


def _decision_problems(connection: Connection) -> Iterator[str]:
    for row in connection.execute(select(rater_decisions)):
        if not 0 <= row.weight <= 1 or (row.reopen and row.weight != 0):
            yield f"decision {row.id}: weight {row.weight}, reopen {row.reopen} cannot be"
        if not row.reason and row.erased_at is None:
            yield f"decision {row.id}: without a reason"
    for row in connection.execute(select(consents)):
        if content_hash(row.text) != row.text_hash:
            yield f"consent of annotator {row.annotator_id}: its text has been changed"


def _adjudication_problems(connection: Connection) -> Iterator[str]:
    query = (
        select(adjudications, judgements.c.purpose, judgements.c.annotator_id)
        .add_columns(judgements.c.comparison_id.label("judged"))
        .join(judgements, adjudications.c.judgement_id == judgements.c.id)
    )
    for row in connection.execute(query):
        where = f"adjudication {row.id}: judgement {row.judgement_id}"
        if row.judged != row.comparison_id:
            yield f"{where} is of another item"
        if row.purpose != "adjudication":
            yield f"{where} is of purpose {row.purpose}"
        if row.annotator_id != row.decided_by:
            yield f"{where} is another's"
    decided = select(adjudications.c.judgement_id).where(adjudications.c.judgement_id.is_not(None))
    stray = select(judgements.c.id).where(
        judgements.c.purpose == "adjudication",
        judgements.c.id.not_in(decided),
        judgements.c.skip.is_(None),
    )
    for judgement_id in connection.execute(stray).scalars():
        yield f"judgement {judgement_id}: of purpose adjudication, and nobody put it in force"
