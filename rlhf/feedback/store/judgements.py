"""Judgements as they were written, and which of them stand: see `writing` for the writing."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, bindparam, select

from rlhf.errors import DataError
from rlhf.feedback.store import campaigns
from rlhf.feedback.store.database import decoding
from rlhf.feedback.store.remembering import remembered
from rlhf.feedback.store.rows import record_of
from rlhf.feedback.store.standing import not_taken_back, standing, taken_back
from rlhf.feedback.tables import annotators as annotator_table
from rlhf.feedback.tables import campaigns as campaign_table
from rlhf.feedback.tables import comparisons as comparison_table
from rlhf.feedback.tables import judgements
from rlhf.records import Judgement, Purpose, content_hash


class JudgementError(DataError):
    """A judgement that the store refuses; `judgement_id` says which."""

    def __init__(self, message: str, judgement_id: str):
        super().__init__(message)
        self.judgement_id = judgement_id


def judgement_hash(judgement: Judgement) -> str:
    """A hash of what was judged and said: a retry has the same, whenever it was sent."""
    names = "campaign item annotator verdict both_bad ranking ratings rewrite rewrite_of skip flags"
    values = {name: getattr(judgement, name) for name in names.split()}
    values |= {"rationale": judgement.rationale, "supersedes": judgement.supersedes}
    if judgement.purpose != "rate":  # an older version hashed what had no purpose
        values["purpose"] = judgement.purpose
    return content_hash(values)


def read(
    connection: Connection,
    *,
    campaign: str | None = None,
    annotator: str | None = None,
    current_only: bool = True,
    limit: int | None = None,
    purposes: Collection[Purpose] | None = None,
) -> list[Judgement]:
    """Judgements in the order of their arrival, of those the last `limit`.

    `current_only` leaves out what was superseded or taken back.
    """
    conditions: list[ColumnElement[bool]] = [standing(), not_taken_back()] if current_only else []
    if campaign is not None:
        key = campaigns.find_row(connection, campaign)["id"]
        conditions.append(comparison_table.c.campaign_id == key)
    if annotator is not None:
        conditions.append(_by(connection, annotator))
    if purposes is not None:
        conditions.append(judgements.c.purpose.in_(list(purposes)))
    return [record_of(row) for row in rows(connection, *conditions, limit=limit)]


def find(connection: Connection, judgement_id: str, annotator: str) -> Judgement | None:
    """The judgement of that id, superseded or not, where it is this annotator's."""
    row = first(connection, judgements.c.id == judgement_id, _by(connection, annotator))
    return None if row is None else record_of(row)


def undone(connection: Connection, campaign: str, annotator: str) -> list[Judgement]:
    """The rows by which an annotator took judgements back that they have not given anew."""
    key = campaigns.find_row(connection, campaign)["id"]
    mine = comparison_table.c.campaign_id == key, _by(connection, annotator)
    return [record_of(row) for row in rows(connection, *mine, taken_back(), standing())]


def num_raters(connection: Connection, campaign: str, item: str) -> int:
    """How many annotators have judged an item, by what stands; skips do not count."""
    key = campaigns.find_row(connection, campaign)["id"]
    query = select(comparison_table.c.num_raters).where(
        comparison_table.c.campaign_id == key, comparison_table.c.item == item
    )
    return connection.execute(query).scalar() or 0


def given(connection: Connection, campaign: str) -> dict[str, dict[str, Any]]:
    """Per judgement id what its imported line said in other words (see interchange)."""
    key = campaigns.find_row(connection, campaign)["id"]
    of_campaign = (comparison_table.c.campaign_id == key, judgements.c.given.is_not(None))
    return {row["id"]: row["given"] for row in rows(connection, *of_campaign)}


_KEPT_UNDER = select(judgements.c.seq).where(judgements.c.idempotency_key == bindparam("key"))


def by_key(connection: Connection, idempotency_key: str) -> RowMapping | None:
    """The row that was stored under an idempotency key, if one was."""
    seq = connection.execute(_KEPT_UNDER, {"key": idempotency_key}).scalar()
    return None if seq is None else first(connection, judgements.c.seq == seq)


def stored_retry(
    connection: Connection, judgement: Judgement, idempotency_key: str
) -> Judgement | None:
    """What an earlier request with this key stored; DataError when it said something else.

    Its purpose is the store's to know, and so is what an adjudication supersedes.
    """
    row = by_key(connection, idempotency_key)
    if row is None:
        return None
    sent = replace(judgement, purpose=row["purpose"])
    if row["purpose"] == "adjudication":
        sent = replace(sent, supersedes=row["supersedes"])
    if row["content_hash"] != judgement_hash(sent):
        raise JudgementError(
            f"idempotency key {idempotency_key!a} was used for another judgement ({row['id']}); "
            "use a new key for a new judgement",
            judgement.id,
        )
    with decoding():
        return record_of(row)


def standing_of(
    connection: Connection, comparison_id: int, rater: int, purpose: Purpose
) -> str | None:
    """The id of what a rater says of an item for a purpose; None when they said nothing."""
    query = select(judgements.c.id).where(
        judgements.c.comparison_id == comparison_id,
        judgements.c.annotator_id == rater,
        judgements.c.purpose == purpose,
        standing(),
    )
    return connection.execute(query).scalar()


_ANNOTATOR_KEY = select(annotator_table.c.id).where(
    annotator_table.c.name == bindparam("annotator")
)


def _by(connection: Connection, annotator: str) -> ColumnElement[bool]:
    """The SQL condition that a row is an annotator's; by their key, which has an index."""
    key = remembered(
        connection,
        ("annotator's key", annotator),
        lambda: connection.execute(_ANNOTATOR_KEY, {"annotator": annotator}).scalar(),
    )
    return judgements.c.annotator_id == (key or 0)


def first(connection: Connection, *conditions: ColumnElement[bool]) -> RowMapping | None:
    """The first row of `rows`, if there is one."""
    return next(iter(rows(connection, *conditions)), None)


_WITH_NAMES = select(
    judgements,
    comparison_table.c.item,
    campaign_table.c.name.label("campaign"),
    annotator_table.c.name.label("annotator"),
).select_from(judgements.join(comparison_table).join(campaign_table).join(annotator_table))


def rows(
    connection: Connection, *conditions: ColumnElement[bool], limit: int | None = None
) -> Sequence[RowMapping]:
    """Rows with their names in the order of arrival; with `limit` the last so many."""
    query = _WITH_NAMES.where(*conditions).limit(limit)
    query = query.order_by(judgements.c.seq if limit is None else judgements.c.seq.desc())
    with decoding():
        rows = connection.execute(query).mappings().all()
    return rows if limit is None else rows[::-1]
