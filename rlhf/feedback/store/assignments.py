"""Who rates what next: leases that expire, each item to exactly as many raters as wanted."""

import hashlib
import random
import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, RowMapping, bindparam, case, func, insert, select, update

from rlhf.errors import DataError
from rlhf.feedback.protocols import Protocol
from rlhf.feedback.rules import UNDONE
from rlhf.feedback.store import annotators, campaigns, comparisons, judgements, raters, writing
from rlhf.feedback.store.consents import ConsentNeeded
from rlhf.feedback.store.database import decoding
from rlhf.feedback.store.drawing import holds_place, next_draw
from rlhf.feedback.store.judgements import JudgementError
from rlhf.feedback.store.records import Assignment, AssignmentRow, OwnProgress
from rlhf.feedback.store.standing import standing
from rlhf.feedback.tables import annotators as annotator_table
from rlhf.feedback.tables import assignments
from rlhf.feedback.tables import campaigns as campaign_table
from rlhf.feedback.tables import comparisons as comparison_table
from rlhf.feedback.tables import judgements as judgement_table
from rlhf.records import Comparison, Judgement, Purpose

NOT_COUNTED = OwnProgress(num_judged=0, num_skipped=0, num_taken_back=0, num_left=0)


def display_order(
    seed: int, item: str, annotator: str, count: int, purpose: Purpose = "rate"
) -> tuple[int, ...]:
    """The order in which a rater sees an item's completions: as if at random, always the same.

    For a retest it is drawn anew.
    """
    drawn = f"{seed}\n{item}\n{annotator}" + ("\nretest" if purpose == "retest" else "")
    order = list(range(count))
    random.Random(int.from_bytes(hashlib.sha256(drawn.encode()).digest())).shuffle(order)
    return tuple(order)


def next_assignment(
    connection: Connection, campaign: str, annotator: str, now: datetime, *, counted: bool = True
) -> Assignment | None:
    """The rater's open lease, extended, or one on the next item that wants them; None at the end.

    An item wants a rater who has neither judged nor skipped it, while fewer raters than the
    campaign's overlap have judged it or hold a lease on it; see `drawing` for the items that
    check raters. The rater's progress is counted only when `counted`, since that takes longer
    the more they have done. Raises ConsentNeeded until the rater has agreed.
    """
    row = campaigns.find_row(connection, campaign, lock=True)
    rater = annotators.find_row(connection, annotator)
    standing = raters.standing_of(connection, row, rater)
    if standing == "consent":
        raise ConsentNeeded(f"campaign {campaign!r} asks for your consent first; read its text")
    if standing != "open":
        return None
    lease = _own_lease(connection, row, rater["id"])
    if lease is not None and not _free(connection, row, lease, now):
        _close(connection, lease["id"], "expired", now)
        lease = None
    expires_at = now + timedelta(seconds=row["lease_s"])
    if lease is None:
        return _issue(connection, row, rater, now, expires_at, counted=counted)
    _extend(connection, lease["id"], expires_at)
    shown = comparisons.by_id(connection, lease["comparison_id"])
    values = {**lease, "expires_at": expires_at}
    return _record_of(connection, row, rater, values, shown, counted=counted)


def renew(connection: Connection, assignment_id: str, annotator: str, now: datetime) -> bool:
    """Extend a lease while its rater is at it; False when it is closed or its place was taken."""
    lease = _lease_of(connection, assignment_id, annotator)
    row = campaigns.find_row(connection, lease["campaign"], lock=True)
    lease = _lease_of(connection, assignment_id, annotator)
    if lease["closed_at"] is not None or not _free(connection, row, lease, now):
        return False
    _extend(connection, assignment_id, now + timedelta(seconds=row["lease_s"]))
    return True


def submit(
    connection: Connection,
    judgement: Judgement,
    *,
    assignment_id: str,
    idempotency_key: str,
    now: datetime,
) -> Judgement:
    """Store a judgement and close its lease, or return what the same request stored before.

    A lease that ran out still counts as long as nobody else took its place, since a rater who
    thought long must not lose their work. Raises JudgementError when the lease is another's,
    closed, or for another item, or when the values do not fit.
    """
    campaign = campaigns.find_row(connection, judgement.campaign, lock=True)
    stored = judgements.stored_retry(connection, judgement, idempotency_key)
    if stored is not None:
        return stored
    lease = _lease_for(connection, judgement, assignment_id)
    judgement = replace(judgement, purpose=lease["purpose"])
    if not _free(connection, campaign, lease, now):
        raise JudgementError(
            f"the time for item {judgement.item!a} ran out and another rater has taken it; "
            "this answer was not saved, go on with the next item",
            judgement.id,
        )
    writing.store(
        connection,
        judgement,
        comparison_id=lease["comparison_id"],
        campaign=campaign,
        idempotency_key=idempotency_key,
        in_app=True,
        assignment_id=assignment_id,
    )
    _close(connection, assignment_id, "judged", now)
    return judgement


def _lease_for(connection: Connection, judgement: Judgement, assignment_id: str) -> RowMapping:
    """The open lease that a judgement answers; JudgementError when it answers none."""
    lease = _lease_of(connection, assignment_id, judgement.annotator)
    problem = None
    if lease["closed_at"] is not None:
        problem = f"is closed ({lease['outcome']}); ask for the next item"
    elif (lease["campaign"], lease["item"]) != (judgement.campaign, judgement.item):
        problem = f"is for item {lease['item']!a}, not {judgement.item!a}"
    elif tuple(lease["shown_order"]) != judgement.shown_order:
        problem = f"was shown as {lease['shown_order']}, not {list(judgement.shown_order)}"
    elif judgement.supersedes is not None:
        problem = "asks for a first judgement; revise() takes one that supersedes"
    if problem is not None:
        raise JudgementError(f"assignment {assignment_id!a} {problem}", judgement.id)
    return lease


def _lease_of(connection: Connection, assignment_id: str, annotator: str) -> RowMapping:
    keys = {"assignment": assignment_id, "annotator": annotator}
    row = connection.execute(_LEASE, keys).mappings().first()
    if row is None:
        annotators.find_row(connection, annotator)
        raise DataError(
            f"annotator {annotator!r} has no assignment {assignment_id!a}; ask for the next item"
        )
    return row


# built once: making a query's expression takes longer than running it
_OF_COMPARISON = assignments.join(
    comparison_table, assignments.c.comparison_id == comparison_table.c.id
)
_LEASE = (
    select(
        assignments,
        comparison_table.c.item,
        comparison_table.c.num_raters,
        campaign_table.c.name.label("campaign"),
    )
    .select_from(
        _OF_COMPARISON.join(campaign_table, assignments.c.campaign_id == campaign_table.c.id).join(
            annotator_table, assignments.c.annotator_id == annotator_table.c.id
        )
    )
    .where(
        assignments.c.id == bindparam("assignment"),
        annotator_table.c.name == bindparam("annotator"),
    )
)
_OWN_LEASE = (
    select(assignments, comparison_table.c.num_raters)
    .select_from(_OF_COMPARISON)
    .where(
        assignments.c.annotator_id == bindparam("rater"),
        assignments.c.campaign_id == bindparam("campaign"),
        assignments.c.closed_at.is_(None),
    )
    .order_by(assignments.c.issued_at)
)
_INSERT = insert(assignments)


def _own_lease(connection: Connection, campaign: RowMapping, rater: int) -> RowMapping | None:
    keys = {"rater": rater, "campaign": campaign["id"]}
    return connection.execute(_OWN_LEASE, keys).mappings().first()


def _free(connection: Connection, campaign: RowMapping, lease: RowMapping, now: datetime) -> bool:
    """Whether a lease still has its place: always while it runs, later while none has taken it.

    What checks a rater takes nobody's place.
    """
    if lease["expires_at"] > now or lease["purpose"] != "rate":
        return True
    held = select(func.count()).select_from(assignments).where(
        assignments.c.comparison_id == lease["comparison_id"],
        assignments.c.id != lease["id"],
        holds_place(now),
    )  # fmt: skip
    taken = lease["num_raters"] + connection.execute(held).scalar_one()
    return bool(taken < campaign["overlap"])


def _issue(
    connection: Connection,
    campaign: RowMapping,
    rater: RowMapping,
    now: datetime,
    expires_at: datetime,
    *,
    counted: bool,
) -> Assignment | None:
    draw = next_draw(connection, campaign, rater, campaigns.protocol(campaign), now)
    if draw is None:
        return None
    shown = comparisons.by_id(connection, draw.comparison_id)
    order = display_order(
        campaign["seed"], shown.item, rater["name"], len(shown.completions), draw.purpose
    )
    values: dict[str, Any] = {"campaign_id": campaign["id"], "comparison_id": draw.comparison_id}
    values |= {"annotator_id": rater["id"], "issued_at": now, "expires_at": expires_at}
    values |= {"shown_order": order, "guideline_version": campaign["guideline_version"]}
    values |= {"id": uuid.uuid4().hex, "purpose": draw.purpose}
    connection.execute(_INSERT, values)
    return _record_of(connection, campaign, rater, values, shown, counted=counted)


def _extend(connection: Connection, assignment_id: str, expires_at: datetime) -> None:
    row = assignments.c.id == assignment_id
    connection.execute(update(assignments).where(row).values(expires_at=expires_at))


def _close(connection: Connection, assignment_id: str, outcome: str, now: datetime) -> None:
    row = assignments.c.id == assignment_id
    connection.execute(update(assignments).where(row).values(closed_at=now, outcome=outcome))


def _record_of(
    connection: Connection,
    campaign: RowMapping,
    rater: RowMapping,
    lease: Mapping[str, Any],
    shown: Comparison,
    *,
    counted: bool,
) -> Assignment:
    mine = _progress(connection, campaign, rater["id"]) if counted else NOT_COUNTED
    return Assignment(
        id=lease["id"],
        campaign=campaign["name"],
        annotator=rater["name"],
        comparison=shown,
        shown_order=tuple(lease["shown_order"]),
        expires_at=lease["expires_at"],
        guideline_version=lease["guideline_version"],
        num_done=mine.num_done,
        num_left=mine.num_left,
        purpose=lease["purpose"],
    )


def own_progress(connection: Connection, campaign: str, annotator: str) -> OwnProgress:
    """How far a rater has come in a campaign; counted in SQL, since it is asked at every pair."""
    row = campaigns.find_row(connection, campaign)
    return _progress(connection, row, annotators.find_row(connection, annotator)["id"])


def _progress(connection: Connection, campaign: RowMapping, rater: int) -> OwnProgress:
    keys = {"rater": rater, "campaign": campaign["id"]}
    num_standing, num_skipped, num_taken_back = connection.execute(_DONE, keys).one()
    return OwnProgress(
        num_judged=num_standing - num_skipped - num_taken_back,
        num_skipped=num_skipped,
        num_taken_back=num_taken_back,
        num_left=_num_left(connection, campaign, rater, campaigns.protocol(campaign)),
    )


_TAKEN_BACK = judgement_table.c.skip == UNDONE
_OF_RATER = (
    judgement_table.c.annotator_id == bindparam("rater"),
    comparison_table.c.campaign_id == bindparam("campaign"),
)
_DONE = (
    select(
        func.count(),
        func.coalesce(
            func.sum(case((_TAKEN_BACK, 0), (judgement_table.c.skip.is_not(None), 1), else_=0)), 0
        ),
        func.coalesce(func.sum(case((_TAKEN_BACK, 1), else_=0)), 0),
    )
    .select_from(judgement_table.join(comparison_table))
    .where(*_OF_RATER, judgement_table.c.purpose != "adjudication", standing())
)
_WANTING = (
    select(comparison_table.c.purpose, func.count(comparison_table.c.id.distinct()))
    .where(
        comparison_table.c.campaign_id == bindparam("campaign"),
        (comparison_table.c.purpose != "rate")
        | (comparison_table.c.num_raters < bindparam("overlap")),
    )
    .group_by(comparison_table.c.purpose)
)
_WANTING_AND_SEEN = _WANTING.join(
    judgement_table, judgement_table.c.comparison_id == comparison_table.c.id
).where(judgement_table.c.annotator_id == bindparam("rater"))


def _num_left(connection: Connection, campaign: RowMapping, rater: int, protocol: Protocol) -> int:
    """How many items are to come: those that want the rater, and by their shares the checks.

    What the rater has seen is counted and taken off: asking of each item whether they have seen
    it takes far longer.
    """
    keys = {"campaign": campaign["id"], "overlap": campaign["overlap"], "rater": rater}
    left = Counter({row.purpose: row[1] for row in connection.execute(_WANTING, keys)})
    left.subtract({row.purpose: row[1] for row in connection.execute(_WANTING_AND_SEEN, keys)})
    ordinary, gold = left["rate"], left["gold"]
    expected = ordinary / (1 - protocol.gold_share - protocol.retest_share)
    num_checks = min(gold, round(expected * protocol.gold_share))
    num_checks += round(expected * protocol.retest_share)
    return left["qualification"] + ordinary + num_checks


def log(connection: Connection, campaign: str) -> list[AssignmentRow]:
    """Every lease of a campaign, the oldest first."""
    query = (
        select(
            assignments,
            comparison_table.c.item,
            annotator_table.c.name.label("annotator"),
        )
        .select_from(
            assignments.join(
                comparison_table, assignments.c.comparison_id == comparison_table.c.id
            ).join(annotator_table, assignments.c.annotator_id == annotator_table.c.id)
        )
        .where(assignments.c.campaign_id == campaigns.find_row(connection, campaign)["id"])
        .order_by(assignments.c.issued_at, assignments.c.id)
    )
    names = list(AssignmentRow.__dataclass_fields__)
    with decoding():
        rows = connection.execute(query).mappings().all()
        return [AssignmentRow(**{name: row[name] for name in names}) for row in rows]
