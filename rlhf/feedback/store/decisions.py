"""Leads' decisions on raters: recorded one after the other, of which the last one holds."""

import math
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, Select, func, insert, select, update

from rlhf.errors import DataError
from rlhf.feedback.rules import check_text
from rlhf.feedback.store import annotators, campaigns, writing
from rlhf.feedback.store.accounts import require_lead
from rlhf.feedback.store.database import decoding
from rlhf.feedback.store.decided import current_decision
from rlhf.feedback.store.records import RaterDecision
from rlhf.feedback.tables import annotators as annotator_table
from rlhf.feedback.tables import assignments, rater_decisions
from rlhf.feedback.tables import campaigns as campaign_table


def decide(
    connection: Connection,
    campaign: str,
    annotator: str,
    *,
    weight: float,
    reason: str,
    decided_by: str,
    reopen: bool,
    now: datetime,
) -> None:
    """Record how much a rater's judgements weigh from now on.

    Weight 0 gives the rater nothing more: their open lease is closed. With `reopen` their items
    want others in their place, until a later decision says otherwise.
    """
    row = campaigns.find_row(connection, campaign, lock=True)
    rater = annotators.find_row(connection, annotator)["id"]
    _check(weight, reason, reopen=reopen)
    values = {"campaign_id": row["id"], "annotator_id": rater, "weight": float(weight)}
    values |= {"reason": reason, "reopen": reopen, "created_at": now}
    values["decided_by"] = require_lead(connection, decided_by)["id"]
    before = current_decision(connection, row["id"], rater)
    connection.execute(insert(rater_decisions).values(**values))
    if weight == 0:
        _close_leases(connection, row["id"], rater, now)
    if reopen != bool(before and before["reopen"]):
        writing.recount_items_of(connection, row["id"], rater)


def read(connection: Connection, campaign: str, *, current_only: bool) -> list[RaterDecision]:
    """The decisions of a campaign, oldest first; of each rater the last one alone, or all."""
    key = campaigns.find_row(connection, campaign)["id"]
    decider = annotator_table.alias("decider")
    query = (
        select(
            rater_decisions,
            campaign_table.c.name.label("campaign"),
            annotator_table.c.name.label("annotator"),
            decider.c.name.label("decider"),
        )
        .select_from(
            rater_decisions.join(campaign_table)
            .join(annotator_table, rater_decisions.c.annotator_id == annotator_table.c.id)
            .join(decider, rater_decisions.c.decided_by == decider.c.id)
        )
        .where(rater_decisions.c.campaign_id == key)
        .order_by(rater_decisions.c.id)
    )
    if current_only:
        query = query.where(rater_decisions.c.id.in_(_newest(key)))
    with decoding():
        return [_decision(row) for row in connection.execute(query).mappings()]


def weights(connection: Connection, campaign: str) -> dict[str, float]:
    """The weight of each rater on whom something was decided."""
    decided = read(connection, campaign, current_only=True)
    return {decision.annotator: decision.weight for decision in decided}


def _newest(campaign_id: int) -> Select[Any]:
    return (
        select(func.max(rater_decisions.c.id))
        .where(rater_decisions.c.campaign_id == campaign_id)
        .group_by(rater_decisions.c.annotator_id)
    )


def _check(weight: float, reason: str, *, reopen: bool) -> None:
    if not (math.isfinite(weight) and 0 <= weight <= 1):
        raise DataError(f"weight {weight}: give 0 (excluded) to 1 (full)")
    if reopen and weight != 0:
        raise DataError("only the items of an excluded rater (weight 0) can be given to others")
    if not reason.strip():
        raise DataError("a decision on a rater needs a reason; write one")
    check_text(reason, "the reason")


def _close_leases(connection: Connection, campaign_id: int, rater: int, now: datetime) -> None:
    connection.execute(
        update(assignments)
        .where(
            assignments.c.campaign_id == campaign_id,
            assignments.c.annotator_id == rater,
            assignments.c.closed_at.is_(None),
        )
        .values(closed_at=now, outcome="expired")
    )


def _decision(row: RowMapping) -> RaterDecision:
    return RaterDecision(
        campaign=row["campaign"],
        annotator=row["annotator"],
        weight=row["weight"],
        reason=row["reason"],
        decided_by=row["decider"],
        created_at=row["created_at"],
        reopen=row["reopen"],
    )
