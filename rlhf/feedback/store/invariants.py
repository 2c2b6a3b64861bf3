"""What must hold in every store, checked from outside the code that keeps it so."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial

from sqlalchemy import Connection, select, text

from rlhf.feedback.store import campaign_invariants, people_invariants
from rlhf.feedback.store.database import UNREADABLE, DamagedRowError, reason_of
from rlhf.feedback.tables import campaigns as campaign_table
from rlhf.feedback.tables import comparison_members, prompts
from rlhf.feedback.tables import comparisons as comparison_table
from rlhf.feedback.tables import completions as completion_table
from rlhf.feedback.tables import judgements as judgement_table
from rlhf.records import content_hash

_TRIGGERS = {
    "sqlite": (
        "SELECT name FROM sqlite_master WHERE type = 'trigger'",
        {
            f"{table}_no_{change}"
            for table in ("judgements", "rater_decisions", "adjudications", "consents")
            for change in ("replace", "update", "delete")
        },
    ),
    "postgresql": (
        "SELECT tgname FROM pg_trigger WHERE tgenabled <> 'D'",
        {"judgements_append_only", "judgements_no_truncate"}
        | {
            f"{table}_no_{change}"
            for table in ("rater_decisions", "adjudications", "consents")
            for change in ("update", "delete", "truncate")
        },
    ),
}


def problems(connection: Connection) -> list[str]:
    """Every broken invariant, a line each; empty for a whole store."""
    found = list(_file_problems(connection))
    if any(line.startswith("file: ") for line in found):
        return found  # what a damaged file says of its contents means nothing
    found += _or_unreadable("guards", lambda: _trigger_problems(connection))
    found += _or_unreadable("prompts and completions", lambda: _content_problems(connection))
    found += _or_unreadable("campaigns", lambda: _all_campaigns_problems(connection))
    found += _or_unreadable("items", lambda: _orphans(connection))
    found += _or_unreadable("assignments", lambda: campaign_invariants.lease_problems(connection))
    found += _or_unreadable("people", lambda: people_invariants.problems(connection))
    return found


def _or_unreadable(what: str, problems_of: Callable[[], Iterable[str]]) -> Iterator[str]:
    """Problems as they are found, and as the last one that rows could not be read at all."""
    try:
        yield from problems_of()
    except (*UNREADABLE, DamagedRowError) as error:
        reason = str(error) if isinstance(error, DamagedRowError) else reason_of(error)
        yield f"{what}: a row cannot be read ({reason})"


def _all_campaigns_problems(connection: Connection) -> Iterator[str]:
    query = select(campaign_table).order_by(campaign_table.c.id)
    for campaign in connection.execute(query).mappings().all():
        where = f"campaign {campaign['name']!a}"
        yield from _or_unreadable(
            where, partial(campaign_invariants.problems, connection, campaign)
        )


def _file_problems(connection: Connection) -> Iterator[str]:
    if connection.dialect.name != "sqlite":
        return
    for (line,) in connection.execute(text("PRAGMA integrity_check")):
        if line.startswith(("CHECK", "NULL")):
            yield f"tables: {line}"
        elif line != "ok":
            yield f"file: {' '.join(str(line).split())}"
    for table, row, parent, _ in connection.execute(text("PRAGMA foreign_key_check")):
        yield f"{table} row {row}: refers to a row of {parent} that is not there"


def _trigger_problems(connection: Connection) -> Iterator[str]:
    query, wanted = _TRIGGERS[connection.dialect.name]
    for name in sorted(wanted - set(connection.execute(text(query)).scalars())):
        yield f"guard {name} is missing: what was recorded could be changed; restore from a backup"


def _content_problems(connection: Connection) -> Iterator[str]:
    """Prompts and completions are named by the hash of their content."""
    for row in connection.execute(select(prompts)):
        if content_hash(row.content) != row.id:
            yield f"prompt {row.id}: its content has been changed"
    for entry in connection.execute(select(completion_table)).mappings():
        values = {name: entry[name] for name in ("prompt_id", "text", "source", "ended", "seed")}
        if content_hash(values) != entry["id"]:
            yield f"completion {entry['id']}: its content has been changed"


def _orphans(connection: Connection) -> Iterator[str]:
    members = select(comparison_members.c.comparison_id)
    query = select(comparison_table.c.item).where(comparison_table.c.id.not_in(members))
    for item in connection.execute(query).scalars():
        yield f"item {item!a}: no completions"
    there = select(comparison_table.c.id)
    lost = select(judgement_table.c.id).where(judgement_table.c.comparison_id.not_in(there))
    for judgement_id in connection.execute(lost).scalars():
        yield f"judgement {judgement_id}: its comparison is not there"
