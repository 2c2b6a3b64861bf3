"""The decision on a rater that holds now."""

from sqlalchemy import Connection, RowMapping, bindparam, select

from rlhf.feedback.tables import rater_decisions

_NEWEST = (
    select(rater_decisions)
    .where(
        rater_decisions.c.campaign_id == bindparam("campaign"),
        rater_decisions.c.annotator_id == bindparam("rater"),
    )
    .order_by(rater_decisions.c.id.desc())
    .limit(1)
)


def current_decision(connection: Connection, campaign_id: int, rater: int) -> RowMapping | None:
    """The row of the decision that holds for a rater; None where none was made."""
    keys = {"campaign": campaign_id, "rater": rater}
    return connection.execute(_NEWEST, keys).mappings().first()
