"""Whether a rater gets items of a campaign: decisions, consent, qualification, pauses."""

from typing import Any

from sqlalchemy import Connection, RowMapping, select

from rlhf.feedback.gold import meets
from rlhf.feedback.store import campaigns, consents
from rlhf.feedback.store.decided import current_decision
from rlhf.feedback.store.judgements import rows
from rlhf.feedback.store.records import Standing
from rlhf.feedback.store.rows import record_of
from rlhf.feedback.store.standing import standing
from rlhf.feedback.tables import comparisons, judgements


def standing_of(connection: Connection, campaign: RowMapping, rater: RowMapping) -> Standing:
    """Whether a campaign is open to a rater, and if not, what is in the way first."""
    decision = current_decision(connection, campaign["id"], rater["id"])
    protocol = campaigns.protocol(campaign)
    if rater["disabled_at"] is not None or (decision is not None and decision["weight"] == 0):
        return "excluded"
    if protocol.paused:
        return "paused"
    if not consents.has_agreed(connection, campaign, rater["id"]):
        return "consent"
    share = protocol.qualify_share
    if share is None or decision is not None:
        return "open"
    return (
        "open" if _is_qualified(connection, campaign["id"], rater["id"], share) else "unqualified"
    )


def _is_qualified(connection: Connection, campaign_id: int, rater: int, share: float) -> bool:
    """Whether enough qualification items were answered as expected; true while some are left."""
    query = select(comparisons.c.id, comparisons.c.gold).where(
        comparisons.c.campaign_id == campaign_id, comparisons.c.purpose == "qualification"
    )
    expected: dict[int, Any] = {row.id: row.gold for row in connection.execute(query)}
    mine = judgements.c.comparison_id.in_(expected), judgements.c.annotator_id == rater
    answers = rows(connection, *mine, standing()) if expected else []
    answered = {row["comparison_id"] for row in answers}
    known = [key for key, gold in expected.items() if gold is not None]
    if not known or answered < expected.keys():
        return True
    met = {
        row["comparison_id"]
        for row in answers
        if expected[row["comparison_id"]] is not None
        and meets(record_of(row), expected[row["comparison_id"]])
    }
    return len(met) >= share * len(known)
