"""Who is signed in, and who has tried in vain: shared by all servers on one store."""

from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, func, insert, select, update

from rlhf.errors import DataError
from rlhf.feedback.store.accounts import account_of
from rlhf.feedback.store.annotators import find_row
from rlhf.feedback.store.database import decoding
from rlhf.feedback.store.records import Account
from rlhf.feedback.store.secrets import new_secret, secret_hash
from rlhf.feedback.tables import annotators, sessions, sign_in_failures

FAILURES_KEPT_S = 24 * 3600.0
"""Failed sign-ins are forgotten after so long; asking for older ones finds none."""


def open_session(connection: Connection, name: str, *, lifetime_s: float, now: datetime) -> str:
    """The secret token of a new session; DataError for an account that cannot sign in."""
    row = find_row(connection, name)
    if row["simulated"] or row["disabled_at"] is not None or row["erased_at"] is not None:
        raise DataError(f"{name!r} cannot sign in; ask a lead")
    connection.execute(delete(sessions).where(sessions.c.expires_at <= now))
    token = new_secret()
    values = {"token_hash": secret_hash(token), "annotator_id": row["id"], "created_at": now}
    expires_at = now + timedelta(seconds=lifetime_s)
    connection.execute(insert(sessions).values(**values, expires_at=expires_at))
    return token


def session(connection: Connection, token: str, now: datetime) -> Account | None:
    """Whose session a token is; None when it was ended, has run out, or its account is shut."""
    query = (
        select(annotators)
        .join(sessions, sessions.c.annotator_id == annotators.c.id)
        .where(
            sessions.c.token_hash == secret_hash(token),
            sessions.c.expires_at > now,
            annotators.c.disabled_at.is_(None),
            annotators.c.erased_at.is_(None),
        )
    )
    with decoding():
        row = connection.execute(query).mappings().first()
        return None if row is None else account_of(row)


def extend(connection: Connection, token: str, *, lifetime_s: float, now: datetime) -> None:
    """Let a session that still runs last `lifetime_s` from now; one that is over stays over."""
    running = sessions.c.token_hash == secret_hash(token), sessions.c.expires_at > now
    until = now + timedelta(seconds=lifetime_s)
    connection.execute(update(sessions).where(*running).values(expires_at=until))


def end(connection: Connection, token: str) -> None:
    """End one session; nothing happens where there is none."""
    connection.execute(delete(sessions).where(sessions.c.token_hash == secret_hash(token)))


def end_all(connection: Connection, name: str) -> None:
    """End every session of an account."""
    key = find_row(connection, name)["id"]
    connection.execute(delete(sessions).where(sessions.c.annotator_id == key))


def record_failure(connection: Connection, key: str, now: datetime) -> None:
    """Note that a sign-in failed, for a key such as "name:ada" or "address:1.2.3.4".

    Only the key's hash is kept, and none of it longer than `FAILURES_KEPT_S`.
    """
    oldest = now - timedelta(seconds=FAILURES_KEPT_S)
    connection.execute(delete(sign_in_failures).where(sign_in_failures.c.failed_at < oldest))
    values = {"key_hash": secret_hash(key), "failed_at": now}
    connection.execute(insert(sign_in_failures).values(**values))


def num_failures(connection: Connection, key: str, since: datetime, now: datetime) -> int:
    """How many sign-ins have failed for a key since then, and up to `now`."""
    query = select(func.count()).where(
        sign_in_failures.c.key_hash == secret_hash(key),
        sign_in_failures.c.failed_at >= since,
        sign_in_failures.c.failed_at <= now,
    )
    return connection.execute(query).scalar_one()


def clear_failures(connection: Connection, key: str) -> None:
    """Forget the failures of a key: its sign-in has succeeded."""
    mine = sign_in_failures.c.key_hash == secret_hash(key)
    connection.execute(delete(sign_in_failures).where(mine))
