"""Who rates what next: leases that expire, each item to exactly as many raters as wanted."""

import hashlib
import random
import uuid
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, case, func, insert, select, update

from rlhf.errors import DataError
from rlhf.feedback.rules import UNDONE
from rlhf.feedback.store import annotators, campaigns, comparisons, judgements
from rlhf.feedback.store.judgements import JudgementError
from rlhf.feedback.store.records import Assignment, OwnProgress
from rlhf.feedback.store.standing import standing
from rlhf.feedback.tables import assignments
from rlhf.feedback.tables import campaigns as campaign_table
from rlhf.feedback.tables import comparisons as comparison_table
from rlhf.feedback.tables import judgements as judgement_table
from rlhf.records import Judgement

NOT_COUNTED = OwnProgress(num_judged=0, num_skipped=0, num_taken_back=0, num_left=0)


def display_order(seed: int, item: str, annotator: str, count: int) -> tuple[int, ...]:
    """The order in which a rater sees an item's completions: as if at random, always the same."""
    digest = hashlib.sha256(f"{seed}\n{item}\n{annotator}".encode()).digest()
    order = list(range(count))
    random.Random(int.from_bytes(digest)).shuffle(order)
    return tuple(order)


def next_assignment(
    connection: Connection, campaign: str, annotator: str, now: datetime, *, counted: bool = True
) -> Assignment | None:
    """The rater's open lease, extended, or one on the next item that wants them; None at the end.

    An item wants a rater who has neither judged nor skipped it, while fewer raters than the
    campaign's overlap have judged it or hold a lease on it. The rater's progress is counted
    only when `counted`, since that takes longer the more they have done.
    """
    row = campaigns.find_row(connection, campaign, lock=True)
    rater = annotators.find_row(connection, annotator)
    expires_at = now + timedelta(seconds=row["lease_s"])
    lease = _own_lease(connection, row, rater["id"])
    if lease is not None and not _free(connection, row, lease, now):
        _close(connection, lease["id"], "expired", now)
        lease = None
    if lease is not None:
        _extend(connection, lease["id"], expires_at)
    else:
        lease = _issue(connection, row, rater, now, expires_at)
    if lease is None:
        return None
    return _record_of(connection, row, rater, lease, expires_at, counted=counted)


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
    if not _free(connection, campaign, lease, now):
        raise JudgementError(
            f"the time for item {judgement.item!a} ran out and another rater has taken it; "
            "this answer was not saved, go on with the next item",
            judgement.id,
        )
    judgements.store(
        connection,
        judgement,
        comparison_id=lease["comparison_id"],
        kinds=campaign["settings"].get("kinds", [campaign["task"]]),
        idempotency_key=idempotency_key,
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
    rater = annotators.find_row(connection, annotator)
    query = (
        select(
            assignments,
            comparison_table.c.item,
            comparison_table.c.num_raters,
            campaign_table.c.name.label("campaign"),
        )
        .select_from(
            assignments.join(
                comparison_table, assignments.c.comparison_id == comparison_table.c.id
            ).join(campaign_table, assignments.c.campaign_id == campaign_table.c.id)
        )
        .where(assignments.c.id == assignment_id, assignments.c.annotator_id == rater["id"])
    )
    row = connection.execute(query).mappings().first()
    if row is None:
        raise DataError(
            f"annotator {annotator!r} has no assignment {assignment_id!a}; ask for the next item"
        )
    return row


def _own_lease(connection: Connection, campaign: RowMapping, rater: int) -> RowMapping | None:
    query = (
        select(assignments, comparison_table.c.num_raters)
        .join(comparison_table, assignments.c.comparison_id == comparison_table.c.id)
        .where(
            assignments.c.annotator_id == rater,
            assignments.c.campaign_id == campaign["id"],
            assignments.c.closed_at.is_(None),
        )
        .order_by(assignments.c.issued_at)
    )
    return connection.execute(query).mappings().first()


def _free(connection: Connection, campaign: RowMapping, lease: RowMapping, now: datetime) -> bool:
    """Whether a lease still has its place: always while it runs, later while none has taken it."""
    if lease["expires_at"] > now:
        return True
    held = select(func.count()).select_from(assignments).where(
        assignments.c.comparison_id == lease["comparison_id"],
        assignments.c.id != lease["id"],
        _running(now),
    )  # fmt: skip
    taken = lease["num_raters"] + connection.execute(held).scalar_one()
    return bool(taken < campaign["overlap"])


def _issue(
    connection: Connection,
    campaign: RowMapping,
    rater: RowMapping,
    now: datetime,
    expires_at: datetime,
) -> RowMapping | None:
    key = connection.execute(_next_item(campaign, rater["id"], now)).scalar()
    if key is None:
        return None
    comparison = comparisons.by_id(connection, key)
    order = display_order(
        campaign["seed"], comparison.item, rater["name"], len(comparison.completions)
    )
    values: dict[str, Any] = {"campaign_id": campaign["id"], "comparison_id": key}
    values |= {"annotator_id": rater["id"], "issued_at": now, "expires_at": expires_at}
    values |= {"shown_order": order, "guideline_version": campaign["guideline_version"]}
    values["id"] = uuid.uuid4().hex
    connection.execute(insert(assignments).values(**values))
    return _own_lease(connection, campaign, rater["id"])


def _next_item(campaign: RowMapping, rater: int, now: datetime) -> Any:
    held = (
        select(func.count())
        .select_from(assignments)
        .where(assignments.c.comparison_id == comparison_table.c.id, _running(now))
        .scalar_subquery()
    )
    return (
        select(comparison_table.c.id)
        .where(
            comparison_table.c.campaign_id == campaign["id"],
            comparison_table.c.num_raters < campaign["overlap"],
            comparison_table.c.num_raters + held < campaign["overlap"],
            ~_seen_by(rater),
        )
        .order_by(comparison_table.c.position)
        .limit(1)
    )


def _seen_by(rater: int) -> ColumnElement[bool]:
    """Whether the rater has ever judged or skipped an item."""
    return (
        select(judgement_table.c.seq)
        .where(
            judgement_table.c.comparison_id == comparison_table.c.id,
            judgement_table.c.annotator_id == rater,
        )
        .exists()
    )


def _running(now: datetime) -> ColumnElement[bool]:
    return assignments.c.closed_at.is_(None) & (assignments.c.expires_at > now)


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
    lease: RowMapping,
    expires_at: datetime,
    *,
    counted: bool,
) -> Assignment:
    mine = NOT_COUNTED
    if counted:
        mine = own_progress(connection, campaign["name"], rater["name"])
    return Assignment(
        id=lease["id"],
        campaign=campaign["name"],
        annotator=rater["name"],
        comparison=comparisons.by_id(connection, lease["comparison_id"]),
        shown_order=tuple(lease["shown_order"]),
        expires_at=expires_at,
        guideline_version=lease["guideline_version"],
        num_done=mine.num_done,
        num_left=mine.num_left,
    )


def own_progress(connection: Connection, campaign: str, annotator: str) -> OwnProgress:
    """How far a rater has come in a campaign; counted in SQL, since it is asked at every pair."""
    row = campaigns.find_row(connection, campaign)
    rater = annotators.find_row(connection, annotator)["id"]
    taken_back, skipped = judgement_table.c.skip == UNDONE, judgement_table.c.skip.is_not(None)
    mine = (
        select(
            func.count(),
            func.coalesce(func.sum(case((taken_back, 0), (skipped, 1), else_=0)), 0),
            func.coalesce(func.sum(case((taken_back, 1), else_=0)), 0),
        )
        .select_from(judgement_table.join(comparison_table))
        .where(
            judgement_table.c.annotator_id == rater,
            comparison_table.c.campaign_id == row["id"],
            standing(),
        )
    )
    num_standing, num_skipped, num_taken_back = connection.execute(mine).one()
    wanting = select(func.count()).select_from(comparison_table).where(
        comparison_table.c.campaign_id == row["id"],
        comparison_table.c.num_raters < row["overlap"],
        ~_seen_by(rater),
    )  # fmt: skip
    return OwnProgress(
        num_judged=num_standing - num_skipped - num_taken_back,
        num_skipped=num_skipped,
        num_taken_back=num_taken_back,
        num_left=connection.execute(wanting).scalar_one(),
    )
