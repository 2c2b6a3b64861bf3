"""Accounts: who may sign in, as what, and by which password or identity."""

from collections.abc import Sequence
from datetime import datetime
from typing import get_args

from sqlalchemy import Connection, RowMapping, delete, insert, select, update

from rlhf.errors import ConfigError, DataError
from rlhf.feedback.rules import check_text
from rlhf.feedback.store.annotators import find_row
from rlhf.feedback.store.database import decoding
from rlhf.feedback.store.records import Account, Role
from rlhf.feedback.store.remembering import forget
from rlhf.feedback.tables import annotators, identities, sessions


def account_of(row: RowMapping) -> Account:
    """A row of annotators as an account."""
    return Account(
        name=row["name"],
        role=row["role"],
        simulated=row["simulated"],
        has_password=row["password_hash"] is not None,
        disabled=row["disabled_at"] is not None,
        created_at=row["created_at"],
    )


def every(connection: Connection) -> list[Account]:
    """All accounts but the erased ones, oldest first."""
    query = select(annotators).where(annotators.c.erased_at.is_(None)).order_by(annotators.c.id)
    with decoding():
        return [account_of(row) for row in connection.execute(query).mappings()]


def get(connection: Connection, name: str) -> Account:
    """The account of that name; ConfigError when there is none."""
    return account_of(find_row(connection, name))


def has_lead(connection: Connection) -> bool:
    """Whether there is a lead who can sign in."""
    return bool(_lead_ids(connection))


def set_password_hash(connection: Connection, name: str, hashed: str | None) -> None:
    """Give an account a password, by its argon2 hash, or take it away."""
    row = _person(connection, name)
    connection.execute(
        update(annotators).where(annotators.c.id == row["id"]).values(password_hash=hashed)
    )
    forget(connection)


def password_hash(connection: Connection, name: str) -> str | None:
    """The hash of an account's password; None where there is no password or no such account."""
    query = select(annotators.c.password_hash).where(annotators.c.name == name)
    hashed: str | None = connection.execute(query).scalar()
    return hashed


def link_identity(
    connection: Connection, name: str, issuer: str, subject: str, now: datetime
) -> None:
    """Let an OpenID Connect identity sign in as `name`; DataError when it is another's."""
    row = _person(connection, name)
    for text in (issuer, subject):
        check_text(text, "an identity")
    there = _identity_row(connection, issuer, subject)
    if there is None:
        values = {"issuer": issuer, "subject": subject, "annotator_id": row["id"]}
        connection.execute(insert(identities).values(**values, created_at=now))
    elif there["id"] != row["id"]:
        raise DataError("this identity belongs to another account; sign in with that one")


def find_identity(connection: Connection, issuer: str, subject: str) -> Account | None:
    """The account that an identity signs in as, disabled or not; None when it is unknown."""
    row = _identity_row(connection, issuer, subject)
    return None if row is None else account_of(row)


def with_identity(connection: Connection) -> set[str]:
    """The names of the accounts that an OpenID Connect identity signs in as."""
    query = select(annotators.c.name).join(identities, identities.c.annotator_id == annotators.c.id)
    return set(connection.execute(query).scalars())


def set_role(connection: Connection, name: str, role: Role) -> None:
    """Make somebody a rater or a lead; DataError for the last lead."""
    check_role(role)
    row = _person(connection, name)
    if role != "lead":
        _refuse_last_lead(connection, row, "made a rater")
    connection.execute(update(annotators).where(annotators.c.id == row["id"]).values(role=role))
    forget(connection)


def set_disabled(connection: Connection, name: str, *, disabled: bool, now: datetime) -> None:
    """Shut an account out, ending its sessions, or let it in again; DataError for the last lead."""
    row = _person(connection, name)
    if disabled:
        _refuse_last_lead(connection, row, "disabled")
        connection.execute(delete(sessions).where(sessions.c.annotator_id == row["id"]))
    since = (row["disabled_at"] or now) if disabled else None
    connection.execute(
        update(annotators).where(annotators.c.id == row["id"]).values(disabled_at=since)
    )
    forget(connection)


def require_lead(connection: Connection, name: str) -> RowMapping:
    """The row of a lead; DataError for anybody else, since authority is the store's to know."""
    row = find_row(connection, name)
    if row["role"] != "lead" or row["disabled_at"] is not None:
        raise DataError(f"{name!r} is no lead; this is for a lead to decide")
    return row


def check_role(role: str) -> None:
    """Raise ConfigError for a role that there is not."""
    if role not in get_args(Role):
        raise ConfigError(f"no role {role!r}; there are {' and '.join(get_args(Role))}")


def _person(connection: Connection, name: str) -> RowMapping:
    row = find_row(connection, name)
    if row["simulated"] or row["erased_at"] is not None:
        raise DataError(f"{name!r} is no person who can sign in; choose another account")
    return row


def _lead_ids(connection: Connection, *, lock: bool = False) -> Sequence[int]:
    query = select(annotators.c.id).where(
        annotators.c.role == "lead",
        annotators.c.simulated.is_(False),
        annotators.c.disabled_at.is_(None),
        annotators.c.erased_at.is_(None),
    )
    if lock:  # in one order, so that two who demote each other do not wait for each other
        query = query.order_by(annotators.c.id).with_for_update()
    return connection.execute(query).scalars().all()


def _refuse_last_lead(connection: Connection, row: RowMapping, what: str) -> None:
    if list(_lead_ids(connection, lock=True)) == [row["id"]]:
        raise DataError(f"{row['name']!r} is the only lead and cannot be {what}; add another first")


def _identity_row(connection: Connection, issuer: str, subject: str) -> RowMapping | None:
    query = (
        select(annotators)
        .join(identities, identities.c.annotator_id == annotators.c.id)
        .where(identities.c.issuer == issuer, identities.c.subject == subject)
    )
    with decoding():
        return connection.execute(query).mappings().first()
