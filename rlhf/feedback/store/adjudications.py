"""Adjudication: a lead's own judgement that settles an item on which raters disagree."""

from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, func, select

from rlhf.errors import DataError
from rlhf.feedback.rules import check_text
from rlhf.feedback.store import campaigns, judgements, writing
from rlhf.feedback.store.accounts import require_lead
from rlhf.feedback.store.database import decoding
from rlhf.feedback.store.judgements import JudgementError
from rlhf.feedback.store.records import Adjudication
from rlhf.feedback.tables import adjudications
from rlhf.feedback.tables import annotators as annotator_table
from rlhf.feedback.tables import comparisons as comparison_table
from rlhf.records import Judgement


def adjudicate(
    connection: Connection,
    judgement: Judgement,
    *,
    reason: str,
    idempotency_key: str,
    now: datetime,
) -> Judgement:
    """Keep a lead's judgement and put it in force; it supersedes their own earlier one."""
    campaign = campaigns.find_row(connection, judgement.campaign, lock=True)
    lead = require_lead(connection, judgement.annotator)
    stored = judgements.stored_retry(connection, judgement, idempotency_key)
    if stored is not None:
        return stored
    if judgement.skip is not None:
        raise JudgementError("an adjudication says what holds; it cannot be a skip", judgement.id)
    check_text(reason, "the reason")
    comparison_id = writing.comparison_key(connection, campaign, judgement)
    before = judgements.standing_of(connection, comparison_id, lead["id"], "adjudication")
    judgement = replace(judgement, purpose="adjudication", supersedes=before)
    writing.store(
        connection,
        judgement,
        comparison_id=comparison_id,
        campaign=campaign,
        idempotency_key=idempotency_key,
        in_app=True,
    )
    writing.put_in_force(connection, comparison_id, judgement.id, lead["id"], reason, now)
    return judgement


def withdraw(
    connection: Connection, campaign: str, item: str, *, decided_by: str, reason: str, now: datetime
) -> None:
    """Put an item's adjudication out of force; DataError when none is in force."""
    row = campaigns.find_row(connection, campaign, lock=True)
    lead = require_lead(connection, decided_by)
    check_text(reason, "the reason")
    query = _newest(row["id"]).where(comparison_table.c.item == item)
    newest = connection.execute(query).mappings().first()
    if newest is None or newest["judgement_id"] is None:
        raise DataError(f"item {item!a} of campaign {campaign!r} has no adjudication to withdraw")
    writing.put_in_force(connection, newest["comparison_id"], None, lead["id"], reason, now)


def read(connection: Connection, campaign: str, *, current_only: bool) -> list[Adjudication]:
    """The adjudications of a campaign, oldest first: those in force, or all with withdrawals."""
    key = campaigns.find_row(connection, campaign)["id"]
    query = _newest(key) if current_only else _of(key)
    if current_only:
        query = query.where(adjudications.c.judgement_id.is_not(None))
    with decoding():
        rows = connection.execute(query.order_by(adjudications.c.id)).mappings().all()
    return [
        Adjudication(
            campaign=campaign,
            item=row["item"],
            judgement_id=row["judgement_id"],
            decided_by=row["decider"],
            reason=row["reason"],
            created_at=row["created_at"],
        )
        for row in rows
    ]


def _of(campaign_id: int) -> Select[Any]:
    return (
        select(adjudications, comparison_table.c.item, annotator_table.c.name.label("decider"))
        .select_from(
            adjudications.join(
                comparison_table, adjudications.c.comparison_id == comparison_table.c.id
            ).join(annotator_table, adjudications.c.decided_by == annotator_table.c.id)
        )
        .where(comparison_table.c.campaign_id == campaign_id)
    )


def _newest(campaign_id: int) -> Select[Any]:
    latest = adjudications.alias("latest")
    newest = (
        select(func.max(latest.c.id))
        .where(latest.c.comparison_id == adjudications.c.comparison_id)
        .scalar_subquery()
    )
    return _of(campaign_id).where(adjudications.c.id == newest)
