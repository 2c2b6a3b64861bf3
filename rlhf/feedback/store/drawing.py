"""Which item a rater gets next, and for what: to qualify, to be labelled, or to check them."""

import hashlib
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, RowMapping, bindparam, func, select

from rlhf.feedback.protocols import Protocol
from rlhf.feedback.store.standing import standing
from rlhf.feedback.tables import Moment, assignments, comparisons, judgements
from rlhf.records import Purpose

RETEST_AFTER = 5
"""An item comes a second time after so many other judgements of its rater at the earliest."""


class Draw(NamedTuple):
    """The key of an item, and what it is given for."""

    comparison_id: int
    purpose: Purpose


def next_draw(
    connection: Connection,
    campaign: RowMapping,
    rater: RowMapping,
    protocol: Protocol,
    now: datetime,
) -> Draw | None:
    """The rater's next item; None when none wants them.

    The qualification round comes first. Then, as long as an ordinary item is left for them, a
    gold item or a retest comes in its stead with the protocol's shares, drawn by the campaign's
    seed, the rater and the number of their assignments.
    """
    unseen = _unseen(connection, campaign["id"], rater["id"], "qualification", limit=1)
    if unseen:
        return Draw(unseen[0], "qualification")
    ordinary = _ordinary(connection, campaign, rater["id"], now)
    if ordinary is None:
        return None
    checked = None
    if protocol.gold_share or protocol.retest_share:
        checked = _checking_draw(connection, campaign, rater, protocol)
    return checked or Draw(ordinary, "rate")


def _checking_draw(
    connection: Connection, campaign: RowMapping, rater: RowMapping, protocol: Protocol
) -> Draw | None:
    mine = assignments.c.annotator_id == rater["id"], assignments.c.campaign_id == campaign["id"]
    number = connection.execute(select(func.count(assignments.c.id)).where(*mine)).scalar_one()
    chance, pick = _drawn(campaign["seed"], rater["name"], number)
    if chance < protocol.gold_share:
        keys, purpose = _unseen(connection, campaign["id"], rater["id"], "gold"), "gold"
    elif chance < protocol.gold_share + protocol.retest_share:
        keys, purpose = _retestable(connection, campaign["id"], rater["id"]), "retest"
    else:
        return None
    return Draw(keys[int(pick * len(keys))], purpose) if keys else None  # type: ignore[arg-type]


def _drawn(seed: int, annotator: str, number: int) -> tuple[float, float]:
    """Two numbers from 0 to below 1, as if at random, always the same."""
    digest = hashlib.sha256(f"{seed}\n{annotator}\n{number}".encode()).digest()
    return int.from_bytes(digest[:6]) / 2**48, int.from_bytes(digest[6:12]) / 2**48


def _unseen(
    connection: Connection, campaign_id: int, rater: int, purpose: Purpose, limit: int | None = None
) -> list[int]:
    keys = {"campaign": campaign_id, "purpose": purpose, "rater": rater}
    query = _UNSEEN if limit is None else _UNSEEN.limit(limit)
    return list(connection.execute(query, keys).scalars())


def _retestable(connection: Connection, campaign_id: int, rater: int) -> list[int]:
    """The rater's items that may come a second time: judged long enough ago, and only once."""
    mine = (judgements.c.annotator_id == rater) & (comparisons.c.campaign_id == campaign_id)
    joined = judgements.join(comparisons, judgements.c.comparison_id == comparisons.c.id)
    recent = (
        select(judgements.c.seq)
        .select_from(joined)
        .where(mine)
        .order_by(judgements.c.seq.desc())
        .offset(RETEST_AFTER)
        .limit(1)
    )
    newest = connection.execute(recent).scalar()
    if newest is None:
        return []
    again = judgements.alias("again")
    had = select(again.c.seq).where(
        again.c.comparison_id == judgements.c.comparison_id,
        again.c.annotator_id == rater,
        again.c.purpose != "rate",
    )
    query = (
        select(comparisons.c.id)
        .select_from(joined)
        .where(
            mine,
            comparisons.c.purpose == "rate",
            judgements.c.purpose == "rate",
            judgements.c.seq <= newest,
            judgements.c.skip.is_(None),
            standing(),
            ~had.exists(),
        )
        .order_by(judgements.c.seq)
    )
    return list(connection.execute(query).scalars())


def _ordinary(
    connection: Connection, campaign: RowMapping, rater: int, now: datetime
) -> int | None:
    """The first item that wants a rater, and this one has not seen."""
    keys = {"campaign": campaign["id"], "overlap": campaign["overlap"], "rater": rater, "now": now}
    key: int | None = connection.execute(_ORDINARY, keys).scalar()
    return key


def holds_place(now: datetime | None = None) -> ColumnElement[bool]:
    """The SQL condition that a lease keeps others from its item: it runs, and is for a label.

    Without a time it is the parameter `now` of the query.
    """
    until = bindparam("now", type_=Moment) if now is None else now
    running = assignments.c.closed_at.is_(None) & (assignments.c.expires_at > until)
    return running & (assignments.c.purpose == "rate")


# built once: making a query's expression takes longer than running it
_SEEN = (
    select(judgements.c.seq)
    .where(
        judgements.c.comparison_id == comparisons.c.id,
        judgements.c.annotator_id == bindparam("rater"),
    )
    .exists()
)
_UNSEEN = (
    select(comparisons.c.id)
    .where(
        comparisons.c.campaign_id == bindparam("campaign"),
        comparisons.c.purpose == bindparam("purpose"),
        ~_SEEN,
    )
    .order_by(comparisons.c.position)
)
_HELD = (
    select(func.count())
    .select_from(assignments)
    .where(assignments.c.comparison_id == comparisons.c.id, holds_place())
    .scalar_subquery()
)
_ORDINARY = (
    select(comparisons.c.id)
    .where(
        comparisons.c.campaign_id == bindparam("campaign"),
        comparisons.c.purpose == "rate",
        comparisons.c.num_raters < bindparam("overlap"),
        comparisons.c.num_raters + _HELD < bindparam("overlap"),
        ~_SEEN,
    )
    .order_by(comparisons.c.position)
    .limit(1)
)
