"""The tables of the feedback store, for SQLite and PostgreSQL alike.

Only `rlhf.feedback.store` queries them; `rlhf.feedback.migrations` creates them, and a test
holds the two equal. Every task type fits one row of `judgements`, so no second store is needed.
"""

import json
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)

_ESCAPE = "\ue000"


class AnyText(TypeDecorator[str]):
    """Text that may hold NUL, which PostgreSQL refuses and SQLite's own tools cut at.

    NUL is written as U+E000 "0" and U+E000 itself as U+E000 "1": every text comes back as it was.
    """

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        if value is None or not ("\0" in value or _ESCAPE in value):
            return value
        return value.replace(_ESCAPE, _ESCAPE + "1").replace("\0", _ESCAPE + "0")

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        if value is None or _ESCAPE not in value:
            return value
        return value.replace(_ESCAPE + "0", "\0").replace(_ESCAPE + "1", _ESCAPE)


class JsonText(TypeDecorator[Any]):
    """A JSON value as ASCII text: the same bytes on both engines. None is NULL."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        return None if value is None else json.dumps(value, separators=(",", ":"))

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        return None if value is None else json.loads(value)


class Moment(TypeDecorator[datetime]):
    """A point in time as UTC text of fixed width, so that text order is time order."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> str | None:
        if value is None:
            return None
        assert value.tzinfo is not None, "moments carry their time zone"
        return value.astimezone(UTC).isoformat(timespec="microseconds")

    def process_result_value(self, value: str | None, dialect: Dialect) -> datetime | None:
        return None if value is None else datetime.fromisoformat(value)


metadata = MetaData()

campaigns = Table(
    "campaigns",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", AnyText, nullable=False, unique=True),
    Column("task", Text, nullable=False),
    Column("overlap", Integer, nullable=False),
    Column("lease_s", Double, nullable=False),
    Column("guideline_version", Integer, nullable=False),
    Column("seed", BigInteger, nullable=False),
    Column("settings", JsonText, nullable=False),
    Column("created_at", Moment, nullable=False),
    CheckConstraint("overlap >= 1", name="ck_campaigns_overlap"),
)

guidelines = Table(
    "guidelines",
    metadata,
    Column("campaign_id", ForeignKey("campaigns.id"), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("text", AnyText, nullable=False),
    Column("created_at", Moment, nullable=False),
)

prompts = Table(
    "prompts",
    metadata,
    Column("id", Text, primary_key=True),  # content hash: see records.Prompt.id
    Column("content", JsonText, nullable=False),
)

completions = Table(
    "completions",
    metadata,
    Column("id", Text, primary_key=True),  # hash of all that follows
    Column("prompt_id", ForeignKey("prompts.id"), nullable=False),
    Column("text", AnyText, nullable=False),
    Column("source", AnyText),
    Column("ended", Boolean),
    Column("seed", BigInteger),
)

comparisons = Table(
    "comparisons",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("campaign_id", ForeignKey("campaigns.id"), nullable=False),
    Column("item", AnyText, nullable=False),
    Column("prompt_id", ForeignKey("prompts.id"), nullable=False),
    Column("position", Integer, nullable=False),  # the order in which items are given out
    Column("num_raters", Integer, nullable=False),  # raters with a standing, unskipped judgement
    Column("texts_hash", Text, nullable=False),  # what the item holds, whatever its order
    Column("purpose", Text, nullable=False),  # rate, gold or qualification: see records.Purpose
    Column("gold", JsonText),  # the answer that is expected of raters: see gold.py
    Column("created_at", Moment, nullable=False),
    UniqueConstraint("campaign_id", "item", name="uq_comparisons_campaign_id_item"),
    Index("ix_comparisons_open", "campaign_id", "purpose", "position", "num_raters"),
    Index("ix_comparisons_texts", "campaign_id", "texts_hash"),
)

comparison_members = Table(
    "comparison_members",
    metadata,
    Column("comparison_id", ForeignKey("comparisons.id"), primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("completion_id", ForeignKey("completions.id"), nullable=False),
)

annotators = Table(
    "annotators",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", AnyText, nullable=False, unique=True),
    Column("simulated", Boolean, nullable=False),
    Column("role", Text, nullable=False),
    Column("personal", JsonText),  # whatever else is known of the person; blanked by erasure
    Column("created_at", Moment, nullable=False),
    Column("erased_at", Moment),
    Column("password_hash", Text),  # argon2's own text
    Column("disabled_at", Moment),
)

identities = Table(
    "identities",
    metadata,
    Column("issuer", AnyText, primary_key=True),
    Column("subject", AnyText, primary_key=True),
    Column("annotator_id", ForeignKey("annotators.id"), nullable=False),
    Column("created_at", Moment, nullable=False),
    Index("ix_identities_annotator", "annotator_id"),
)

invites = Table(
    "invites",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("token_hash", Text, nullable=False, unique=True),
    Column("role", Text, nullable=False),
    Column("annotator_id", ForeignKey("annotators.id")),  # whom it signs in; null: somebody new
    Column("created_by", ForeignKey("annotators.id")),
    Column("created_at", Moment, nullable=False),
    Column("expires_at", Moment, nullable=False),
    Column("used_at", Moment),
    Column("used_by", ForeignKey("annotators.id")),
    Column("revoked_at", Moment),
)

sessions = Table(
    "sessions",
    metadata,
    Column("token_hash", Text, primary_key=True),
    Column("annotator_id", ForeignKey("annotators.id"), nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("expires_at", Moment, nullable=False),
    Index("ix_sessions_annotator", "annotator_id"),
)

sign_in_failures = Table(
    "sign_in_failures",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("key_hash", Text, nullable=False),
    Column("failed_at", Moment, nullable=False),
    Index("ix_sign_in_failures_key", "key_hash", "failed_at"),
)

consents = Table(
    "consents",
    metadata,
    Column("campaign_id", ForeignKey("campaigns.id"), primary_key=True),
    Column("annotator_id", ForeignKey("annotators.id"), primary_key=True),
    Column("text_hash", Text, primary_key=True),
    Column("text", AnyText, nullable=False),  # what was agreed to, word for word
    Column("agreed_at", Moment, nullable=False),
)

rater_decisions = Table(
    "rater_decisions",
    metadata,
    Column("id", Integer, primary_key=True),  # of one rater and campaign the last one holds
    Column("campaign_id", ForeignKey("campaigns.id"), nullable=False),
    Column("annotator_id", ForeignKey("annotators.id"), nullable=False),
    Column("weight", Double, nullable=False),
    Column("reopen", Boolean, nullable=False),  # the rater's items want others in their place
    Column("reason", AnyText, nullable=False),
    Column("decided_by", ForeignKey("annotators.id"), nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("erased_at", Moment),
    CheckConstraint("weight BETWEEN 0 AND 1", name="ck_rater_decisions_weight"),
    Index("ix_rater_decisions_rater", "campaign_id", "annotator_id"),
)

assignments = Table(
    "assignments",
    metadata,
    Column("id", Text, primary_key=True),
    Column("campaign_id", ForeignKey("campaigns.id"), nullable=False),
    Column("comparison_id", ForeignKey("comparisons.id"), nullable=False),
    Column("annotator_id", ForeignKey("annotators.id"), nullable=False),
    Column("issued_at", Moment, nullable=False),
    Column("expires_at", Moment, nullable=False),
    Column("closed_at", Moment),
    Column("outcome", Text),  # judged | expired, once closed
    Column("shown_order", JsonText, nullable=False),
    Column("guideline_version", Integer, nullable=False),
    Column("purpose", Text, nullable=False, server_default="rate"),
    Index("ix_assignments_annotator", "annotator_id", "campaign_id", "closed_at"),
    Index("ix_assignments_comparison", "comparison_id", "closed_at"),
)
Index(
    "uq_assignments_open",
    assignments.c.comparison_id,
    assignments.c.annotator_id,
    unique=True,
    sqlite_where=assignments.c.closed_at.is_(None),
    postgresql_where=assignments.c.closed_at.is_(None),
)

judgements = Table(
    "judgements",
    metadata,
    Column("seq", Integer, primary_key=True),  # the order of arrival
    Column("id", AnyText, nullable=False, unique=True),
    Column("comparison_id", ForeignKey("comparisons.id"), nullable=False),
    Column("annotator_id", ForeignKey("annotators.id"), nullable=False),
    Column("assignment_id", ForeignKey("assignments.id")),  # null: imported or recorded
    Column("idempotency_key", AnyText, nullable=False, unique=True),
    Column("content_hash", Text, nullable=False),  # tells a retry from another judgement
    Column("supersedes", ForeignKey("judgements.id"), unique=True),
    Column("simulated", Boolean, nullable=False),
    Column("verdict", Integer),
    Column("both_bad", Boolean, nullable=False),
    Column("ranking", JsonText),
    Column("ratings", JsonText),
    Column("rewrite", AnyText),
    Column("rewrite_of", Integer),
    Column("skip", AnyText),
    Column("flags", JsonText),
    Column("rationale", AnyText),
    Column("seconds", Double, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("shown_order", JsonText, nullable=False),
    Column("guideline_version", Integer),
    Column("given", JsonText),  # what an imported line said in other words; see interchange
    Column("erased_at", Moment),
    Column("purpose", Text, nullable=False, server_default="rate"),
    CheckConstraint("verdict BETWEEN -3 AND 3", name="ck_judgements_verdict"),
    CheckConstraint("seconds >= 0", name="ck_judgements_seconds"),
    Index("ix_judgements_comparison", "comparison_id", "annotator_id"),
    Index("ix_judgements_annotator", "annotator_id"),
)

adjudications = Table(
    "adjudications",
    metadata,
    Column("id", Integer, primary_key=True),  # of one item the last one holds
    Column("comparison_id", ForeignKey("comparisons.id"), nullable=False),
    Column("judgement_id", ForeignKey("judgements.id")),  # null: withdrawn
    Column("decided_by", ForeignKey("annotators.id"), nullable=False),
    Column("reason", AnyText, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("erased_at", Moment),
    Index("ix_adjudications_comparison", "comparison_id"),
)
