"""What raters agree to before they see the first item of a campaign."""

from datetime import datetime

from sqlalchemy import Connection, RowMapping, select

from rlhf.errors import DataError
from rlhf.feedback.store import annotators, campaigns
from rlhf.feedback.store.database import insert_missing
from rlhf.feedback.tables import consents
from rlhf.records import content_hash


class ConsentNeeded(DataError):
    """A rater has not agreed to a campaign's consent text as it stands now."""


def agree(connection: Connection, campaign: str, annotator: str, text: str, now: datetime) -> None:
    """Keep that a rater agreed; DataError when the text is not the one that stands now."""
    row = campaigns.find_row(connection, campaign)
    rater = annotators.find_row(connection, annotator)
    if text != campaigns.protocol(row).consent:
        raise DataError("the consent text has changed meanwhile; read it again")
    if not text:
        return
    values = {"campaign_id": row["id"], "annotator_id": rater["id"], "agreed_at": now}
    values |= {"text_hash": content_hash(text), "text": text}
    if not has_agreed(connection, row, rater["id"]):
        insert_missing(connection, consents, [values])


def has_agreed(connection: Connection, campaign: RowMapping, rater: int) -> bool:
    """Whether a rater agreed to the consent text as it stands now; true where there is none."""
    text = campaigns.protocol(campaign).consent
    if not text:
        return True
    query = select(consents.c.agreed_at).where(
        consents.c.campaign_id == campaign["id"],
        consents.c.annotator_id == rater,
        consents.c.text_hash == content_hash(text),
    )
    return connection.execute(query).first() is not None
