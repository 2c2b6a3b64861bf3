"""The database itself refuses to change or delete what raters saw and said.

The one exception is erasure at a person's request: texts are blanked and the row says when.
"""

from alembic import op

revision = "0002"
down_revision = "0001"

_KEPT = (
    *("seq", "id", "comparison_id", "annotator_id", "assignment_id", "idempotency_key"),
    *("supersedes", "simulated", "verdict", "both_bad", "ranking", "ratings", "rewrite_of"),
    *("flags", "seconds", "created_at", "shown_order", "guideline_version"),
)
_BLANKED = ("rewrite", "skip", "rationale")
_FROZEN = ("prompts", "completions", "comparison_members", "guidelines")
_ADVICE = "judgements are append-only: record a new one that supersedes it"


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        _upgrade_postgresql()
    else:
        _upgrade_sqlite()


def _is_erasure(same: str) -> str:
    """The SQL condition that an update does nothing but blank texts."""
    kept = [f"NEW.{column} {same} OLD.{column}" for column in _KEPT]
    blank = [
        f"(NEW.{column} {same} OLD.{column} OR (OLD.{column} IS NOT NULL AND NEW.{column} = ''))"
        for column in _BLANKED
    ]
    given = f"(NEW.given {same} OLD.given OR NEW.given IS NULL)"
    hashed = f"(NEW.content_hash {same} OLD.content_hash OR NEW.content_hash = '')"
    return " AND ".join([*kept, *blank, given, hashed, "NEW.erased_at IS NOT NULL"])


def _upgrade_sqlite() -> None:
    refuse = f"SELECT RAISE(ABORT, '{_ADVICE}')"
    # INSERT OR REPLACE deletes without firing delete triggers, so inserting must be held too
    clash = "id = NEW.id OR idempotency_key = NEW.idempotency_key OR seq = NEW.seq"
    op.execute(
        "CREATE TRIGGER judgements_no_replace BEFORE INSERT ON judgements "
        f"WHEN EXISTS (SELECT 1 FROM judgements WHERE {clash}) "
        f"BEGIN {refuse}; END"
    )
    op.execute(
        "CREATE TRIGGER judgements_no_update BEFORE UPDATE ON judgements "
        f"WHEN NOT ({_is_erasure('IS')}) BEGIN {refuse}; END"
    )
    op.execute(
        f"CREATE TRIGGER judgements_no_delete BEFORE DELETE ON judgements BEGIN {refuse}; END"
    )
    for table in _FROZEN:
        for event in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER {table}_no_{event.lower()} BEFORE {event} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, '{table} are never changed: judgements rest on them');"
                " END"
            )


def _upgrade_postgresql() -> None:
    op.execute(
        "CREATE FUNCTION rlhf_refuse_judgement_change() RETURNS trigger AS $$ BEGIN "
        f"IF TG_OP = 'UPDATE' THEN IF {_is_erasure('IS NOT DISTINCT FROM')} "
        "THEN RETURN NEW; END IF; END IF; "
        f"RAISE EXCEPTION '{_ADVICE}'; END $$ LANGUAGE plpgsql"
    )
    op.execute(
        "CREATE FUNCTION rlhf_refuse_change() RETURNS trigger AS $$ BEGIN "
        "RAISE EXCEPTION '% are never changed: judgements rest on them', TG_TABLE_NAME; "
        "END $$ LANGUAGE plpgsql"
    )
    op.execute(
        "CREATE TRIGGER judgements_append_only BEFORE UPDATE OR DELETE ON judgements "
        "FOR EACH ROW EXECUTE FUNCTION rlhf_refuse_judgement_change()"
    )
    for table in _FROZEN:
        op.execute(
            f"CREATE TRIGGER {table}_frozen BEFORE UPDATE OR DELETE ON {table} "
            "FOR EACH ROW EXECUTE FUNCTION rlhf_refuse_change()"
        )
    for table in (*_FROZEN, "judgements"):
        op.execute(
            f"CREATE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION rlhf_refuse_change()"
        )
