"""Accounts, consent, and what is recorded of raters' quality; why each item was judged.

Decisions, adjudications and consents are append-only like the judgements they speak of.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_ADVICE = "judgements are append-only: record a new one that supersedes it"
_KEPT = (
    *("seq", "id", "comparison_id", "annotator_id", "assignment_id", "idempotency_key"),
    *("supersedes", "simulated", "verdict", "both_bad", "ranking", "ratings", "rewrite_of"),
    *("flags", "seconds", "created_at", "shown_order", "guideline_version", "purpose"),
)
_BLANKED = ("rewrite", "skip", "rationale")
_LOGS = {
    "rater_decisions": (
        *("id", "campaign_id", "annotator_id", "weight", "reopen", "decided_by"),
        "created_at",
    ),
    "adjudications": ("id", "comparison_id", "judgement_id", "decided_by", "created_at"),
}
_FROZEN = ("consents",)


def upgrade() -> None:
    for table in ("judgements", "assignments"):
        purpose = sa.Column("purpose", sa.Text(), nullable=False, server_default="rate")
        op.add_column(table, purpose)
    op.add_column("annotators", sa.Column("password_hash", sa.Text(), nullable=True))
    op.add_column("annotators", sa.Column("disabled_at", sa.Text(), nullable=True))
    op.drop_index("ix_comparisons_open", "comparisons")
    op.create_index(
        "ix_comparisons_open", "comparisons", ["campaign_id", "purpose", "position", "num_raters"]
    )
    _create_sign_in_tables()
    _create_quality_tables()
    if op.get_bind().dialect.name == "postgresql":
        _guard_postgresql()
    else:
        _guard_sqlite()


def _create_sign_in_tables() -> None:
    op.create_table(
        "identities",
        sa.Column("issuer", sa.Text(), primary_key=True),
        sa.Column("subject", sa.Text(), primary_key=True),
        sa.Column("annotator_id", sa.Integer(), sa.ForeignKey("annotators.id"), nullable=False),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.Index("ix_identities_annotator", "annotator_id"),
    )
    op.create_table(
        "invites",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("token_hash", sa.Text(), nullable=False, unique=True),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("annotator_id", sa.Integer(), sa.ForeignKey("annotators.id"), nullable=True),
        sa.Column("created_by", sa.Integer(), sa.ForeignKey("annotators.id"), nullable=True),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.Text(), nullable=False),
        sa.Column("used_at", sa.Text(), nullable=True),
        sa.Column("used_by", sa.Integer(), sa.ForeignKey("annotators.id"), nullable=True),
        sa.Column("revoked_at", sa.Text(), nullable=True),
    )
    op.create_table(
        "sessions",
        sa.Column("token_hash", sa.Text(), primary_key=True),
        sa.Column("annotator_id", sa.Integer(), sa.ForeignKey("annotators.id"), nullable=False),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.Text(), nullable=False),
        sa.Index("ix_sessions_annotator", "annotator_id"),
    )
    op.create_table(
        "sign_in_failures",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("key_hash", sa.Text(), nullable=False),
        sa.Column("failed_at", sa.Text(), nullable=False),
        sa.Index("ix_sign_in_failures_key", "key_hash", "failed_at"),
    )


def _create_quality_tables() -> None:
    op.create_table(
        "consents",
        sa.Column("campaign_id", sa.Integer(), sa.ForeignKey("campaigns.id"), primary_key=True),
        sa.Column("annotator_id", sa.Integer(), sa.ForeignKey("annotators.id"), primary_key=True),
        sa.Column("text_hash", sa.Text(), primary_key=True),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("agreed_at", sa.Text(), nullable=False),
    )
    op.create_table(
        "rater_decisions",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("campaign_id", sa.Integer(), sa.ForeignKey("campaigns.id"), nullable=False),
        sa.Column("annotator_id", sa.Integer(), sa.ForeignKey("annotators.id"), nullable=False),
        sa.Column("weight", sa.Double(), nullable=False),
        sa.Column("reopen", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("decided_by", sa.Integer(), sa.ForeignKey("annotators.id"), nullable=False),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.Column("erased_at", sa.Text(), nullable=True),
        sa.CheckConstraint("weight BETWEEN 0 AND 1", name="ck_rater_decisions_weight"),
        sa.Index("ix_rater_decisions_rater", "campaign_id", "annotator_id"),
    )
    op.create_table(
        "adjudications",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("comparison_id", sa.Integer(), sa.ForeignKey("comparisons.id"), nullable=False),
        sa.Column("judgement_id", sa.Text(), sa.ForeignKey("judgements.id"), nullable=True),
        sa.Column("decided_by", sa.Integer(), sa.ForeignKey("annotators.id"), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.Column("erased_at", sa.Text(), nullable=True),
        sa.Index("ix_adjudications_comparison", "comparison_id"),
    )


def _is_erasure(same: str) -> str:
    """The SQL condition that an update of a judgement does nothing but blank texts."""
    blank = [_unchanged_or_blank(column, same) for column in _BLANKED]
    given = f"(NEW.given {same} OLD.given OR NEW.given IS NULL)"
    hashed = f"(NEW.content_hash {same} OLD.content_hash OR NEW.content_hash = '')"
    return " AND ".join([*_unchanged(_KEPT, same), *blank, given, hashed, _IS_DATED])


_IS_DATED = "NEW.erased_at IS NOT NULL"


def _blanks_reason(table: str, same: str) -> str:
    """The SQL condition that an update of a log does nothing but blank its reason."""
    blank = _unchanged_or_blank("reason", same)
    return " AND ".join([*_unchanged(_LOGS[table], same), blank, _IS_DATED])


def _unchanged(columns: tuple[str, ...], same: str) -> list[str]:
    return [f"NEW.{column} {same} OLD.{column}" for column in columns]


def _unchanged_or_blank(column: str, same: str) -> str:
    blanked = f"OLD.{column} IS NOT NULL AND NEW.{column} = ''"
    return f"(NEW.{column} {same} OLD.{column} OR ({blanked}))"


def _refusal(table: str) -> str:
    return f"{table} are append-only: record a new one"


def _guard_sqlite() -> None:
    op.execute("DROP TRIGGER judgements_no_update")
    op.execute(
        "CREATE TRIGGER judgements_no_update BEFORE UPDATE ON judgements "
        f"WHEN NOT ({_is_erasure('IS')}) BEGIN SELECT RAISE(ABORT, '{_ADVICE}'); END"
    )
    for table in (*_LOGS, *_FROZEN):
        refuse = f"BEGIN SELECT RAISE(ABORT, '{_refusal(table)}'); END"
        if table in _LOGS:
            # INSERT OR REPLACE deletes without firing delete triggers
            there = f"WHEN EXISTS (SELECT 1 FROM {table} WHERE id = NEW.id)"
            unless_blanked = f"WHEN NOT ({_blanks_reason(table, 'IS')})"
        else:
            keys = ("campaign_id", "annotator_id", "text_hash")
            clash = " AND ".join(f"{key} = NEW.{key}" for key in keys)
            there = f"WHEN EXISTS (SELECT 1 FROM {table} WHERE {clash})"
            unless_blanked = ""
        op.execute(f"CREATE TRIGGER {table}_no_replace BEFORE INSERT ON {table} {there} {refuse}")
        op.execute(
            f"CREATE TRIGGER {table}_no_update BEFORE UPDATE ON {table} {unless_blanked} {refuse}"
        )
        op.execute(f"CREATE TRIGGER {table}_no_delete BEFORE DELETE ON {table} {refuse}")


def _guard_postgresql() -> None:
    same = "IS NOT DISTINCT FROM"
    op.execute(
        "CREATE OR REPLACE FUNCTION rlhf_refuse_judgement_change() RETURNS trigger AS $$ BEGIN "
        f"IF TG_OP = 'UPDATE' THEN IF {_is_erasure(same)} THEN RETURN NEW; END IF; END IF; "
        f"RAISE EXCEPTION '{_ADVICE}'; END $$ LANGUAGE plpgsql"
    )
    op.execute(
        "CREATE FUNCTION rlhf_refuse_log_change() RETURNS trigger AS $$ BEGIN "
        "RAISE EXCEPTION '% are append-only: record a new one', TG_TABLE_NAME; "
        "END $$ LANGUAGE plpgsql"
    )
    for table in (*_LOGS, *_FROZEN):
        refuse = "EXECUTE FUNCTION rlhf_refuse_log_change()"
        changed = f"NOT ({_blanks_reason(table, same)})" if table in _LOGS else "true"
        op.execute(
            f"CREATE TRIGGER {table}_no_update BEFORE UPDATE ON {table} "
            f"FOR EACH ROW WHEN ({changed}) {refuse}"
        )
        op.execute(
            f"CREATE TRIGGER {table}_no_delete BEFORE DELETE ON {table} FOR EACH ROW {refuse}"
        )
        op.execute(
            f"CREATE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON {table} "
            f"FOR EACH STATEMENT {refuse}"
        )
