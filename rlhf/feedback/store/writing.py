"""Judgements: written once, never changed; a later one supersedes."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import (
    Connection,
    RowMapping,
    ScalarSelect,
    Update,
    bindparam,
    func,
    insert,
    select,
    update,
)

from rlhf.errors import DataError
from rlhf.feedback.protocols import require_answer
from rlhf.feedback.rules import UNDONE, check_judgement, is_taken_back
from rlhf.feedback.store import annotators, campaigns, comparisons, raters
from rlhf.feedback.store.judgements import JudgementError, first, judgement_hash, stored_retry
from rlhf.feedback.store.standing import standing
from rlhf.feedback.tables import adjudications, assignments, judgements, rater_decisions
from rlhf.feedback.tables import comparisons as comparison_table
from rlhf.records import Comparison, Judgement


def revise(connection: Connection, judgement: Judgement, idempotency_key: str) -> Judgement:
    """Store a judgement that supersedes one by the same annotator on the same item."""
    campaign = campaigns.find_row(connection, judgement.campaign, lock=True)
    stored = stored_retry(connection, judgement, idempotency_key)
    if stored is not None:
        return stored
    if judgement.supersedes is None:
        raise JudgementError(f"judgement {judgement.id}: supersedes nothing", judgement.id)
    key = comparison_key(connection, campaign, judgement)
    original = _superseded(connection, judgement, key)
    judgement = replace(judgement, purpose=original["purpose"])
    _refuse_closed(connection, campaign, judgement, original)
    store(
        connection, judgement, comparison_id=key, campaign=campaign,
        idempotency_key=idempotency_key, in_app=True,
    )  # fmt: skip
    return judgement


def record(
    connection: Connection,
    batch: Iterable[Judgement],
    *,
    given: Mapping[str, dict[str, Any]],
    now: datetime,
) -> int:
    """Append judgements that came without a lease; how many were new.

    One whose id is there is left alone; JudgementError when it says something else.
    """
    new = 0
    keys = _ItemKeys(connection)
    for judgement in _superseded_first(batch):
        there = first(connection, judgements.c.id == judgement.id)
        if there is not None:
            if there["content_hash"] != judgement_hash(judgement):
                raise JudgementError(
                    f"judgement {judgement.id} is in the store (campaign {there['campaign']!r}) "
                    "and says something else; give it another id",
                    judgement.id,
                )
            continue
        _record_one(connection, judgement, keys, given.get(judgement.id), now)
        new += 1
    return new


def store(
    connection: Connection,
    judgement: Judgement,
    *,
    comparison_id: int,
    campaign: RowMapping,
    idempotency_key: str,
    in_app: bool,
    assignment_id: str | None = None,
    given: dict[str, Any] | None = None,
    comparison: Comparison | None = None,
) -> None:
    """Check a judgement, insert it, and count the item's raters anew.

    One that was made `in_app` must answer all that the campaign's protocol asks.
    """
    annotator = annotators.find_row(connection, judgement.annotator)
    if annotator["simulated"] != judgement.simulated:
        raise JudgementError(
            f"judgement {judgement.id}: simulated is {judgement.simulated}, and annotator "
            f"{judgement.annotator!r} is stored with {annotator['simulated']}",
            judgement.id,
        )
    try:
        shown = comparison or comparisons.by_id(connection, comparison_id)
        check_judgement(judgement, shown, campaigns.kinds(campaign))
        if in_app and campaigns.asks_by_protocol(campaign):
            require_answer(campaigns.protocol(campaign), judgement)
    except DataError as error:
        raise JudgementError(str(error), judgement.id) from None
    values = {name: getattr(judgement, name) for name in _STORED}
    values |= {"comparison_id": comparison_id, "annotator_id": annotator["id"], "given": given}
    values |= {"assignment_id": assignment_id, "idempotency_key": idempotency_key}
    hashed = judgement_hash(judgement)
    connection.execute(_INSERT, {**values, "content_hash": hashed})
    if judgement.purpose == "rate":
        recount(connection, comparison_id)


_INSERT = insert(judgements)
_STORED = (
    *("id", "supersedes", "simulated", "verdict", "both_bad", "ranking", "ratings", "rewrite"),
    *("rewrite_of", "skip", "flags", "rationale", "seconds", "created_at", "shown_order"),
    *("guideline_version", "purpose"),
)


def recount(connection: Connection, comparison_id: int) -> None:
    """Set an item's `num_raters`: the annotators whose standing judgement is no skip.

    Only what was judged to be labelled (purpose `rate`) counts, and nobody whose items a lead
    has reopened.
    """
    connection.execute(_recounting(), {"comparison": comparison_id})


@cache
def _recounting() -> Update:
    row = comparison_table.c.id == bindparam("comparison")
    return update(comparison_table).where(row).values(num_raters=_num_raters())


def recount_items_of(connection: Connection, campaign_id: int, rater: int) -> None:
    """Count anew the raters of every item of a campaign that one rater has judged."""
    judged = select(judgements.c.comparison_id).where(judgements.c.annotator_id == rater)
    rows = comparison_table.c.campaign_id == campaign_id, comparison_table.c.id.in_(judged)
    connection.execute(update(comparison_table).where(*rows).values(num_raters=_num_raters()))


@cache
def _num_raters() -> ScalarSelect[int]:
    """The number of raters of the row of `comparisons` that a query speaks of."""
    decided, later = rater_decisions.alias("decided"), rater_decisions.alias("later_decision")
    mine = (
        decided.c.campaign_id == comparison_table.c.campaign_id,
        decided.c.annotator_id == judgements.c.annotator_id,
    )
    newer = select(later.c.id).where(
        later.c.campaign_id == decided.c.campaign_id,
        later.c.annotator_id == decided.c.annotator_id,
        later.c.id > decided.c.id,
    )
    reopened = select(decided.c.id).where(*mine, decided.c.reopen.is_(True), ~newer.exists())
    return (
        select(func.count(judgements.c.annotator_id.distinct()))
        .where(
            judgements.c.comparison_id == comparison_table.c.id,
            judgements.c.purpose == "rate",
            judgements.c.skip.is_(None),
            standing(),
            ~reopened.correlate(comparison_table, judgements).exists(),
        )
        .correlate(comparison_table)
        .scalar_subquery()
    )


class _ItemKeys:
    """The keys and settings behind (campaign, item), read once a campaign in a long batch."""

    def __init__(self, connection: Connection):
        self._connection = connection
        self._campaigns: dict[str, RowMapping] = {}
        self._items: dict[str, dict[str, int]] = {}
        self._comparisons: dict[str, dict[str, Comparison]] = {}

    def campaign(self, name: str) -> RowMapping:
        if name not in self._campaigns:
            row = campaigns.find_row(self._connection, name, lock=True)
            query = select(comparison_table.c.item, comparison_table.c.id)
            items = self._connection.execute(
                query.where(comparison_table.c.campaign_id == row["id"])
            )
            self._campaigns[name] = row
            self._items[name] = {row.item: row.id for row in items}
            listed = comparisons.every(self._connection, name)
            self._comparisons[name] = {one.item: one for one in listed}
        return self._campaigns[name]

    def item(self, judgement: Judgement) -> tuple[int, Comparison]:
        self.campaign(judgement.campaign)
        key = self._items[judgement.campaign].get(judgement.item)
        if key is None:
            raise _no_item(judgement)
        return key, self._comparisons[judgement.campaign][judgement.item]


def _record_one(
    connection: Connection,
    judgement: Judgement,
    keys: _ItemKeys,
    given: dict[str, Any] | None,
    now: datetime,
) -> None:
    campaign = keys.campaign(judgement.campaign)
    key, comparison = keys.item(judgement)
    if judgement.supersedes is not None:
        _refuse_other_purpose(judgement, _superseded(connection, judgement, key))
    store(
        connection,
        judgement,
        comparison_id=key,
        campaign=campaign,
        idempotency_key=f"record:{judgement.id}",
        in_app=False,
        given=given,
        comparison=comparison,
    )
    rater = annotators.find_row(connection, judgement.annotator)["id"]
    _close_leases(connection, judgement, key, rater, now)
    if judgement.purpose == "adjudication" and not is_taken_back(judgement):
        reason = judgement.rationale or ""
        put_in_force(connection, key, judgement.id, rater, reason, judgement.created_at)


def _close_leases(
    connection: Connection, judgement: Judgement, comparison_id: int, rater: int, now: datetime
) -> None:
    connection.execute(
        update(assignments)
        .where(
            assignments.c.comparison_id == comparison_id,
            assignments.c.annotator_id == rater,
            assignments.c.purpose == judgement.purpose,
            assignments.c.closed_at.is_(None),
        )
        .values(closed_at=now, outcome="judged")
    )


def _superseded_first(batch: Iterable[Judgement]) -> list[Judgement]:
    """The batch in an order in which what is superseded stands before what supersedes it."""
    waiting = {judgement.id: judgement for judgement in batch}
    ordered: dict[str, Judgement] = {}
    for judgement in waiting.values():
        chain = [judgement]
        while (before := waiting.get(chain[-1].supersedes or "")) and before.id not in ordered:
            if before in chain:
                raise JudgementError(
                    f"judgement {before.id} supersedes itself in a circle; mend `supersedes`",
                    before.id,
                )
            chain.append(before)
        ordered |= {one.id: one for one in reversed(chain)}
    return list(ordered.values())


def _superseded(connection: Connection, judgement: Judgement, comparison_id: int) -> RowMapping:
    """The row that a judgement supersedes; JudgementError unless it may."""
    where = f"judgement {judgement.id}: supersedes {judgement.supersedes}"
    row = first(connection, judgements.c.id == judgement.supersedes)
    if row is None:
        raise JudgementError(f"{where}, which is not in the store", judgement.id)
    if row["annotator"] != judgement.annotator or row["comparison_id"] != comparison_id:
        raise JudgementError(f"{where}, which is another rater's or item's", judgement.id)
    if first(connection, judgements.c.supersedes == judgement.supersedes) is not None:
        raise JudgementError(f"{where}, which is superseded already", judgement.id)
    return row


def _refuse_other_purpose(judgement: Judgement, original: RowMapping) -> None:
    if judgement.purpose != original["purpose"]:
        raise JudgementError(
            f"judgement {judgement.id}: of purpose {judgement.purpose}, and it supersedes one of "
            f"purpose {original['purpose']}; give both the same",
            judgement.id,
        )


def _refuse_closed(
    connection: Connection, campaign: RowMapping, judgement: Judgement, original: RowMapping
) -> None:
    """Refuse a revision where its place is gone, or the answer was meant to be the last."""
    if original["purpose"] == "adjudication":
        message = f"item {judgement.item!a}: adjudicate it anew instead of revising"
        raise JudgementError(message, judgement.id)
    if original["purpose"] == "qualification" and original["skip"] != UNDONE:
        rater = annotators.find_row(connection, judgement.annotator)
        if raters.standing_of(connection, campaign, rater) == "unqualified":
            message = "the qualification round is over; its answers stand"
            raise JudgementError(message, judgement.id)
    if original["purpose"] != "rate" or original["skip"] is None or judgement.skip is not None:
        return
    query = select(comparison_table.c.num_raters).where(
        comparison_table.c.id == original["comparison_id"]
    )
    if connection.execute(query).scalar_one() >= campaign["overlap"]:
        raise JudgementError(
            f"item {judgement.item!a} was skipped and has been judged by others since; "
            "go on with the next one",
            judgement.id,
        )


def comparison_key(connection: Connection, campaign: RowMapping, judgement: Judgement) -> int:
    """The key of the item that a judgement is about; JudgementError when there is none."""
    key = comparisons.key_of(connection, campaign["id"], judgement.item)
    if key is None:
        raise _no_item(judgement)
    return key


def _no_item(judgement: Judgement) -> JudgementError:
    return JudgementError(
        f"judgement {judgement.id}: campaign {judgement.campaign!r} has no item "
        f"{judgement.item!a}; add its comparison first",
        judgement.id,
    )


def put_in_force(
    connection: Connection,
    comparison_id: int,
    judgement_id: str | None,
    decided_by: int,
    reason: str,
    now: datetime,
) -> None:
    """Record that a judgement settles an item, or, for None, that none does."""
    values: dict[str, Any] = {"comparison_id": comparison_id, "judgement_id": judgement_id}
    values |= {"reason": reason, "decided_by": decided_by, "created_at": now}
    connection.execute(insert(adjudications).values(**values))
