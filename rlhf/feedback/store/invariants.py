"""What must hold in every store, checked from outside the code that keeps it so."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from sqlalchemy import Connection, RowMapping, func, select, text

from rlhf.feedback.rules import kinds_of, problem_with
from rlhf.feedback.store import comparisons, judgements
from rlhf.feedback.store.campaigns import largest_overlap
from rlhf.feedback.store.database import UNREADABLE, DamagedRowError, reason_of
from rlhf.feedback.store.rows import record_of
from rlhf.feedback.tables import annotators as annotator_table
from rlhf.feedback.tables import assignments, comparison_members, prompts
from rlhf.feedback.tables import campaigns as campaign_table
from rlhf.feedback.tables import comparisons as comparison_table
from rlhf.feedback.tables import completions as completion_table
from rlhf.feedback.tables import judgements as judgement_table
from rlhf.records import Comparison, Judgement, content_hash

_TRIGGERS = {
    "sqlite": (
        "SELECT name FROM sqlite_master WHERE type = 'trigger'",
        {"judgements_no_replace", "judgements_no_update", "judgements_no_delete"},
    ),
    "postgresql": (
        "SELECT tgname FROM pg_trigger WHERE tgenabled <> 'D'",
        {"judgements_append_only", "judgements_no_truncate"},
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
    found += _or_unreadable("assignments", lambda: _lease_problems(connection))
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
        yield from _or_unreadable(where, partial(_campaign_problems, connection, campaign))


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
        yield f"guard {name} is missing: judgements could be changed; restore from a backup"


def _content_problems(connection: Connection) -> Iterator[str]:
    """Prompts and completions are named by the hash of their content."""
    for row in connection.execute(select(prompts)):
        if content_hash(row.content) != row.id:
            yield f"prompt {row.id}: its content has been changed"
    for entry in connection.execute(select(completion_table)).mappings():
        values = {name: entry[name] for name in ("prompt_id", "text", "source", "ended", "seed")}
        if content_hash(values) != entry["id"]:
            yield f"completion {entry['id']}: its content has been changed"


def _campaign_problems(connection: Connection, campaign: RowMapping) -> Iterator[str]:
    where = f"campaign {campaign['name']!a}"
    items = {one.item: one for one in comparisons.every(connection, campaign["name"])}
    kinds = set(campaign["settings"].get("kinds", [campaign["task"]]))
    mixed = "kinds" in campaign["settings"]
    for one in items.values():
        if campaign["task"] == "pairwise" and not mixed and len(one.completions) != 2:
            yield f"{where}, item {one.item!a}: {len(one.completions)} completions, not 2"
    rows = _judgement_rows(connection, campaign["id"])
    by_id = {row["id"]: row for row in rows}
    for row in rows:
        try:
            said = record_of(row)
        except UNREADABLE as error:
            yield f"{where}, judgement {row['id']!a}: cannot be read ({reason_of(error)})"
            continue
        for problem in _judgement_problems(row, said, items, kinds, by_id):
            yield f"{where}, judgement {row['id']}: {problem}"
    for problem in _item_problems(connection, campaign, rows):
        yield f"{where}, {problem}"


def _judgement_problems(
    row: RowMapping,
    said: Judgement,
    items: dict[str, Comparison],
    kinds: set[str],
    by_id: dict[str, RowMapping],
) -> Iterator[str]:
    comparison = items.get(said.item)
    if comparison is None:
        yield f"its item {said.item!a} has no completions"
        return
    problem = problem_with(said, comparison)
    if problem is not None:
        yield problem
    elif said.skip is None and not set(kinds_of(said)) & kinds:
        yield f"says {', '.join(kinds_of(said))} where the campaign takes {', '.join(kinds)}"
    if said.simulated != row["annotator_simulated"]:
        yield f"simulated is {said.simulated}, and its annotator is not of that kind"
    if row["erased_at"] is None and row["content_hash"] != judgements.judgement_hash(said):
        yield "its content has been changed"
    if said.supersedes is not None:
        yield from _chain_problems(row, by_id.get(said.supersedes))


def _chain_problems(row: RowMapping, before: RowMapping | None) -> Iterator[str]:
    what = f"supersedes {row['supersedes']}"
    if before is None:
        yield f"{what}, which is not in this campaign"
    elif before["annotator_id"] != row["annotator_id"]:
        yield f"{what}, which is another rater's"
    elif before["comparison_id"] != row["comparison_id"]:
        yield f"{what}, which is of another item"
    elif before["seq"] >= row["seq"]:
        yield f"{what}, which came later (a circle)"


def _item_problems(
    connection: Connection, campaign: RowMapping, rows: Iterable[RowMapping]
) -> Iterator[str]:
    rows = list(rows)
    superseded = Counter(row["supersedes"] for row in rows if row["supersedes"] is not None)
    for judgement_id, number in superseded.items():
        if number > 1:
            yield f"judgement {judgement_id}: superseded {number} times"
    voices = defaultdict(list)
    for row in rows:
        if row["id"] not in superseded:
            voices[row["item"]].append(row)
    query = select(comparison_table.c.item, comparison_table.c.num_raters)
    counted = connection.execute(query.where(comparison_table.c.campaign_id == campaign["id"]))
    for item, number in counted.all():
        yield from _voice_problems(item, voices[item], number, largest_overlap(campaign))


def _voice_problems(
    item: str, standing: list[RowMapping], counted: int, overlap: int
) -> Iterator[str]:
    """Problems of one item with the judgements that stand on it."""
    raters = {row["annotator_id"] for row in standing if row["skip"] is None}
    leased = [row for row in standing if row["assignment_root"] is not None]
    given_out = {row["annotator_id"] for row in leased if row["skip"] is None}
    if len(raters) != counted:
        yield f"item {item!a}: counted {counted} raters, and there are {len(raters)}"
    if len(given_out) > overlap:
        yield f"item {item!a}: given to {len(given_out)} raters, more than the overlap {overlap}"
    for rater, number in Counter(row["annotator_id"] for row in leased).items():
        if number > 1:
            name = next(row["annotator"] for row in leased if row["annotator_id"] == rater)
            yield f"item {item!a}: judged {number} times by {name!a} (duplicate)"


def _judgement_rows(connection: Connection, campaign_id: int) -> list[RowMapping]:
    """The judgements of a campaign with names; `assignment_root`: a lease stands behind the item
    and rater, though a revision itself has none."""
    lease = assignments.alias("lease")
    root = (
        select(func.min(lease.c.id))
        .where(
            lease.c.comparison_id == judgement_table.c.comparison_id,
            lease.c.annotator_id == judgement_table.c.annotator_id,
            lease.c.outcome == "judged",
        )
        .scalar_subquery()
    )
    query = (
        select(
            judgement_table,
            comparison_table.c.item,
            campaign_table.c.name.label("campaign"),
            annotator_table.c.name.label("annotator"),
            annotator_table.c.simulated.label("annotator_simulated"),
            root.label("assignment_root"),
        )
        .select_from(
            judgement_table.join(comparison_table).join(campaign_table).join(annotator_table)
        )
        .where(comparison_table.c.campaign_id == campaign_id)
        .order_by(judgement_table.c.seq)
    )
    return list(connection.execute(query).mappings())


def _orphans(connection: Connection) -> Iterator[str]:
    members = select(comparison_members.c.comparison_id)
    query = select(comparison_table.c.item).where(comparison_table.c.id.not_in(members))
    for item in connection.execute(query).scalars():
        yield f"item {item!a}: no completions"
    there = select(comparison_table.c.id)
    lost = select(judgement_table.c.id).where(judgement_table.c.comparison_id.not_in(there))
    for judgement_id in connection.execute(lost).scalars():
        yield f"judgement {judgement_id}: its comparison is not there"


def _lease_problems(connection: Connection) -> Iterator[str]:
    said = judgement_table.alias("said")
    same = (said.c.comparison_id == assignments.c.comparison_id) & (
        said.c.annotator_id == assignments.c.annotator_id
    )
    still_open = select(assignments.c.id).where(
        assignments.c.closed_at.is_(None), select(said.c.seq).where(same).exists()
    )
    for key in connection.execute(still_open).scalars():
        yield f"assignment {key}: open, though its rater has judged the item"
    wrong = (
        select(judgement_table.c.id, assignments.c.id.label("lease"))
        .join(assignments, judgement_table.c.assignment_id == assignments.c.id)
        .where(
            (assignments.c.comparison_id != judgement_table.c.comparison_id)
            | (assignments.c.annotator_id != judgement_table.c.annotator_id)
            | assignments.c.closed_at.is_(None)
        )
    )
    for row in connection.execute(wrong):
        yield f"judgement {row.id}: assignment {row.lease} is open, another rater's or item's"
