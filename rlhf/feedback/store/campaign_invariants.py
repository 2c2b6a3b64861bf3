"""What must hold within every campaign: its items, judgements and leases."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, RowMapping, func, select

from rlhf.feedback.gold import problem_with_expected
from rlhf.feedback.rules import kinds_of, problem_with
from rlhf.feedback.store import comparisons, judgements
from rlhf.feedback.store.campaigns import largest_overlap
from rlhf.feedback.store.comparisons import ITEM_PURPOSES
from rlhf.feedback.store.database import UNREADABLE, reason_of
from rlhf.feedback.store.rows import record_of
from rlhf.feedback.tables import annotators as annotator_table
from rlhf.feedback.tables import assignments, rater_decisions
from rlhf.feedback.tables import campaigns as campaign_table
from rlhf.feedback.tables import comparisons as comparison_table
from rlhf.feedback.tables import judgements as judgement_table
from rlhf.records import Comparison, Judgement


def problems(connection: Connection, campaign: RowMapping) -> Iterator[str]:
    """Every broken invariant of one campaign, a line each."""
    where = f"campaign {campaign['name']!a}"
    items = {one.item: one for one in comparisons.every(connection, campaign["name"])}
    kinds = set(campaign["settings"].get("kinds", [campaign["task"]]))
    mixed = "kinds" in campaign["settings"]
    for one in items.values():
        if campaign["task"] == "pairwise" and not mixed and len(one.completions) != 2:
            yield f"{where}, item {one.item!a}: {len(one.completions)} completions, not 2"
    for problem in _gold_problems(connection, campaign, items):
        yield f"{where}, {problem}"
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
    elif before["purpose"] != row["purpose"]:
        yield f"{what}, which is of purpose {before['purpose']}, not {row['purpose']}"


def _gold_problems(
    connection: Connection, campaign: RowMapping, items: dict[str, Comparison]
) -> Iterator[str]:
    """Items of a purpose that there is not, and expected answers that nobody could give."""
    table = comparison_table
    query = select(table.c.item, table.c.purpose, table.c.gold)
    for row in connection.execute(query.where(table.c.campaign_id == campaign["id"])):
        where = f"item {row.item!a}"
        if row.purpose not in ITEM_PURPOSES:
            yield f"{where}: of purpose {row.purpose!a}, which items do not have"
        elif (row.gold is None and row.purpose == "gold") or (
            row.gold is not None and row.purpose == "rate"
        ):
            yield f"{where}: of purpose {row.purpose}, with the expected answer {row.gold!a}"
        elif row.gold is not None and row.item in items:
            problem = problem_with_expected(row.gold, items[row.item])
            if problem is not None:
                yield f"{where}: the expected answer: {problem}"


def _item_problems(
    connection: Connection, campaign: RowMapping, rows: Iterable[RowMapping]
) -> Iterator[str]:
    rows = list(rows)
    superseded = Counter(row["supersedes"] for row in rows if row["supersedes"] is not None)
    for judgement_id, number in superseded.items():
        if number > 1:
            yield f"judgement {judgement_id}: superseded {number} times"
    first_rated = {(row["item"], row["annotator_id"]) for row in rows if row["purpose"] == "rate"}
    for row in rows:
        rated = (row["item"], row["annotator_id"]) in first_rated
        if row["purpose"] == "retest" and row["assignment_root"] is not None and not rated:
            yield f"judgement {row['id']}: a retest of what its rater has not judged before"
    left_out, ever = _reopened(connection, campaign["id"])
    voices = defaultdict(list)
    for row in rows:
        if row["id"] not in superseded:
            voices[row["item"]].append(row)
    query = select(comparison_table.c.item, comparison_table.c.num_raters)
    counted = connection.execute(query.where(comparison_table.c.campaign_id == campaign["id"]))
    for item, number in counted.all():
        standing = [{**row, "reopened": row["annotator_id"] in ever} for row in voices[item]]
        counted_voices = [row for row in standing if row["annotator_id"] not in left_out]
        yield from _count_problems(item, counted_voices, number)
        yield from _lease_voice_problems(item, standing, largest_overlap(campaign))


def _reopened(connection: Connection, campaign_id: int) -> tuple[set[int], set[int]]:
    """The raters whose items are reopened for others now, and those whose items ever were.

    Their items may have one rater more than wanted once the decision was taken back.
    """
    query = select(rater_decisions.c.annotator_id, rater_decisions.c.reopen)
    mine = rater_decisions.c.campaign_id == campaign_id
    rows = connection.execute(query.where(mine).order_by(rater_decisions.c.id)).all()
    now = {row.annotator_id: row.reopen for row in rows}
    ever = {row.annotator_id for row in rows if row.reopen}
    return {rater for rater, reopen in now.items() if reopen}, ever


_Row = Mapping[str, Any]


def _count_problems(item: str, standing: Sequence[_Row], counted: int) -> Iterator[str]:
    rated = (row for row in standing if row["skip"] is None and row["purpose"] == "rate")
    raters = {row["annotator_id"] for row in rated}
    if len(raters) != counted:
        yield f"item {item!a}: counted {counted} raters, and there are {len(raters)}"


def _lease_voice_problems(item: str, standing: Sequence[_Row], overlap: int) -> Iterator[str]:
    """Problems of one item with the judgements on it that stand and came by leases."""
    leased = [row for row in standing if row["assignment_root"] is not None]
    rated = (row for row in leased if row["skip"] is None and row["purpose"] == "rate")
    given_out = {row["annotator_id"] for row in rated if not row["reopened"]}
    if len(given_out) > overlap:
        yield f"item {item!a}: given to {len(given_out)} raters, more than the overlap {overlap}"
    times = Counter((row["annotator"], row["purpose"]) for row in leased)
    for (name, purpose), number in times.items():
        if number > 1:
            what = "" if purpose == "rate" else f" as {purpose}"
            yield f"item {item!a}: judged {number} times{what} by {name!a} (duplicate)"


def _judgement_rows(connection: Connection, campaign_id: int) -> list[RowMapping]:
    """The judgements of a campaign with names; `assignment_root`: a lease stands behind the item
    and rater, though a revision itself has none."""
    lease = assignments.alias("lease")
    root = (
        select(func.min(lease.c.id))
        .where(
            lease.c.comparison_id == judgement_table.c.comparison_id,
            lease.c.annotator_id == judgement_table.c.annotator_id,
            lease.c.purpose == judgement_table.c.purpose,
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


def lease_problems(connection: Connection) -> Iterator[str]:
    """Leases that are open or closed against what was judged, and their purposes."""
    said = judgement_table.alias("said")
    same = (
        (said.c.comparison_id == assignments.c.comparison_id)
        & (said.c.annotator_id == assignments.c.annotator_id)
        & (said.c.purpose == assignments.c.purpose)
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
    other = (
        select(judgement_table.c.id, assignments.c.purpose)
        .join(assignments, judgement_table.c.assignment_id == assignments.c.id)
        .where(assignments.c.purpose != judgement_table.c.purpose)
    )
    for row in connection.execute(other):
        yield f"judgement {row.id}: of another purpose than its assignment ({row.purpose})"
