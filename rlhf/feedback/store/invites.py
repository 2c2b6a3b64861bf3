"""Single-use invites: a link that makes an account, or signs in one that is there."""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, RowMapping, Select, insert, select, update

from rlhf.errors import ConfigError, DataError
from rlhf.feedback.rules import check_text
from rlhf.feedback.store import annotators
from rlhf.feedback.store.accounts import account_of, check_role
from rlhf.feedback.store.database import decoding, insert_missing
from rlhf.feedback.store.records import Account, Invite, OpenInvite, Role
from rlhf.feedback.store.secrets import new_secret, secret_hash
from rlhf.feedback.tables import annotators as annotator_table
from rlhf.feedback.tables import invites

MAX_NAME_LENGTH = 100


class InviteError(DataError):
    """An invite that gives nothing, in a sentence for the person who followed its link."""


def create(
    connection: Connection,
    *,
    role: Role,
    annotator: str | None,
    created_by: str | None,
    lifetime_s: float,
    now: datetime,
) -> str:
    """The secret of a new invite; only its hash is kept."""
    check_role(role)
    signed_in = None if annotator is None else _usable(connection, annotator)
    maker = None if created_by is None else annotators.find_row(connection, created_by)["id"]
    secret = new_secret()
    values = {"token_hash": secret_hash(secret), "role": signed_in["role"] if signed_in else role}
    values |= {"annotator_id": signed_in["id"] if signed_in else None, "created_by": maker}
    values |= {"created_at": now, "expires_at": now + timedelta(seconds=lifetime_s)}
    connection.execute(insert(invites).values(**values))
    return secret


def read(connection: Connection, token: str, now: datetime) -> Invite:
    """What an invite gives; InviteError when it is unknown, used, withdrawn or too old."""
    row = _row(connection, token)
    _refuse_unusable(row, now)
    return Invite(
        role=row["role"],
        annotator=row["annotator"],
        created_by=row["maker"],
        expires_at=row["expires_at"],
    )


def redeem(connection: Connection, token: str, *, name: str | None, now: datetime) -> Account:
    """Use an invite up: the account that it signs in, made under `name` where it is a new one.

    InviteError when it cannot be used or the name is taken; the invite is then as it was.
    """
    row = _row(connection, token)
    _refuse_unusable(row, now)
    # of two who redeem at once, the second waits here and then finds it used
    unused = invites.c.used_at.is_(None) & invites.c.revoked_at.is_(None)
    taken = connection.execute(
        update(invites).where(invites.c.id == row["id"], unused).values(used_at=now)
    )
    if taken.rowcount != 1:
        raise InviteError(_USED)
    if row["annotator"] is None:
        account = _new_account(connection, name, row["role"], now)
    else:
        account = _usable(connection, row["annotator"])
    used = update(invites).where(invites.c.id == row["id"])
    connection.execute(used.values(used_by=account["id"]))
    return account_of(account)


def unused(connection: Connection, now: datetime) -> list[OpenInvite]:
    """The invites that can still be used, oldest first, without their secrets."""
    query = _query().where(
        invites.c.used_at.is_(None), invites.c.revoked_at.is_(None), invites.c.expires_at > now
    )
    with decoding():
        rows = connection.execute(query.order_by(invites.c.id)).mappings().all()
    return [
        OpenInvite(
            id=row["id"],
            role=row["role"],
            annotator=row["annotator"],
            created_by=row["maker"],
            created_at=row["created_at"],
            expires_at=row["expires_at"],
        )
        for row in rows
    ]


def revoke(connection: Connection, invite_id: int, now: datetime) -> None:
    """Make an invite useless; one that was used stays used. ConfigError when there is none."""
    there = connection.execute(select(invites.c.id).where(invites.c.id == invite_id)).first()
    if there is None:
        raise ConfigError(f"no invite {invite_id} in the store")
    still_open = invites.c.used_at.is_(None) & invites.c.revoked_at.is_(None)
    connection.execute(
        update(invites).where(invites.c.id == invite_id, still_open).values(revoked_at=now)
    )


_USED = "This invite has been used already. Ask for a new one."


def _refuse_unusable(row: RowMapping, now: datetime) -> None:
    if row["used_at"] is not None:
        raise InviteError(_USED)
    if row["revoked_at"] is not None:
        raise InviteError("This invite was withdrawn. Ask for a new one.")
    if row["expires_at"] <= now:
        raise InviteError("This invite has expired. Ask for a new one.")


def _row(connection: Connection, token: str) -> RowMapping:
    query = _query().where(invites.c.token_hash == secret_hash(token))
    with decoding():
        row = connection.execute(query).mappings().first()
    if row is None:
        raise InviteError("This invite is not known here. Check that the link is whole.")
    return row


def _query() -> Select[Any]:
    maker = annotator_table.alias("maker")
    return select(
        invites, annotator_table.c.name.label("annotator"), maker.c.name.label("maker")
    ).select_from(
        invites.outerjoin(
            annotator_table, invites.c.annotator_id == annotator_table.c.id
        ).outerjoin(maker, invites.c.created_by == maker.c.id)
    )


def _usable(connection: Connection, name: str) -> RowMapping:
    row = annotators.find_row(connection, name)
    if row["simulated"] or row["erased_at"] is not None or row["disabled_at"] is not None:
        raise InviteError(f"The account {name!r} cannot sign in. Ask a lead.")
    return row


def _new_account(connection: Connection, name: str | None, role: Role, now: datetime) -> RowMapping:
    name = (name or "").strip()
    if not name or len(name) > MAX_NAME_LENGTH or not name.isprintable():
        raise InviteError(f"Choose a name of 1 to {MAX_NAME_LENGTH} letters.")
    check_text(name, "the name")
    values = {"name": name, "simulated": False, "role": role, "created_at": now}
    if not insert_missing(connection, annotator_table, [values]):
        raise InviteError(f"The name {name!r} is taken. Choose another one.")
    return annotators.find_row(connection, name)
