"""Judgements: written once, never changed; a later one supersedes."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, insert, select, update

from rlhf.errors import DataError
from rlhf.feedback.rules import check_judgement
from rlhf.feedback.store import annotators, campaigns, comparisons
from rlhf.feedback.store.database import decoding
from rlhf.feedback.store.rows import record_of
from rlhf.feedback.store.standing import not_taken_back, standing, taken_back
from rlhf.feedback.tables import annotators as annotator_table
from rlhf.feedback.tables import assignments, judgements
from rlhf.feedback.tables import campaigns as campaign_table
from rlhf.feedback.tables import comparisons as comparison_table
from rlhf.records import Comparison, Judgement, content_hash


class JudgementError(DataError):
    """A judgement that the store refuses; `judgement_id` says which."""

    def __init__(self, message: str, judgement_id: str):
        super().__init__(message)
        self.judgement_id = judgement_id


def judgement_hash(judgement: Judgement) -> str:
    """A hash of what was judged and said: a retry has the same, whenever it was sent."""
    names = "campaign item annotator verdict both_bad ranking ratings rewrite rewrite_of skip flags"
    values = {name: getattr(judgement, name) for name in names.split()}
    return content_hash(
        {**values, "rationale": judgement.rationale, "supersedes": judgement.supersedes}
    )


def read(
    connection: Connection,
    *,
    campaign: str | None = None,
    annotator: str | None = None,
    current_only: bool = True,
    limit: int | None = None,
) -> list[Judgement]:
    """Judgements in the order of their arrival, of those the last `limit`.

    `current_only` leaves out what was superseded or taken back.
    """
    conditions = [standing(), not_taken_back()] if current_only else []
    if campaign is not None:
        key = campaigns.find_row(connection, campaign)["id"]
        conditions.append(comparison_table.c.campaign_id == key)
    if annotator is not None:
        conditions.append(_by(connection, annotator))
    return [record_of(row) for row in _rows(connection, *conditions, limit=limit)]


def find(connection: Connection, judgement_id: str, annotator: str) -> Judgement | None:
    """The judgement of that id, superseded or not, where it is this annotator's."""
    row = _first(connection, judgements.c.id == judgement_id, _by(connection, annotator))
    return None if row is None else record_of(row)


def undone(connection: Connection, campaign: str, annotator: str) -> list[Judgement]:
    """The rows by which an annotator took judgements back that they have not given anew."""
    key = campaigns.find_row(connection, campaign)["id"]
    mine = comparison_table.c.campaign_id == key, _by(connection, annotator)
    return [record_of(row) for row in _rows(connection, *mine, taken_back(), standing())]


def num_raters(connection: Connection, campaign: str, item: str) -> int:
    """How many annotators have judged an item, by what stands; skips do not count."""
    key = campaigns.find_row(connection, campaign)["id"]
    query = select(comparison_table.c.num_raters).where(
        comparison_table.c.campaign_id == key, comparison_table.c.item == item
    )
    return connection.execute(query).scalar() or 0


def given(connection: Connection, campaign: str) -> dict[str, dict[str, Any]]:
    """Per judgement id what its imported line said in other words (see interchange)."""
    key = campaigns.find_row(connection, campaign)["id"]
    of_campaign = (comparison_table.c.campaign_id == key, judgements.c.given.is_not(None))
    return {row["id"]: row["given"] for row in _rows(connection, *of_campaign)}


def by_key(connection: Connection, idempotency_key: str) -> RowMapping | None:
    """The row that was stored under an idempotency key, if one was."""
    return next(iter(_rows(connection, judgements.c.idempotency_key == idempotency_key)), None)


def stored_retry(
    connection: Connection, judgement: Judgement, idempotency_key: str
) -> Judgement | None:
    """What an earlier request with this key stored; DataError when it said something else."""
    row = by_key(connection, idempotency_key)
    if row is None:
        return None
    if row["content_hash"] != judgement_hash(judgement):
        raise JudgementError(
            f"idempotency key {idempotency_key!a} was used for another judgement ({row['id']}); "
            "use a new key for a new judgement",
            judgement.id,
        )
    with decoding():
        return record_of(row)


def revise(connection: Connection, judgement: Judgement, idempotency_key: str) -> Judgement:
    """Store a judgement that supersedes one by the same annotator on the same item."""
    campaign = campaigns.find_row(connection, judgement.campaign, lock=True)
    stored = stored_retry(connection, judgement, idempotency_key)
    if stored is not None:
        return stored
    if judgement.supersedes is None:
        raise JudgementError(f"judgement {judgement.id}: supersedes nothing", judgement.id)
    comparison_id = _comparison_id(connection, campaign, judgement)
    original = _superseded(connection, judgement, comparison_id)
    if original["skip"] is not None and judgement.skip is None:
        _refuse_when_full(connection, campaign, comparison_id, judgement)
    store(
        connection, judgement, comparison_id=comparison_id, kinds=_kinds(campaign),
        idempotency_key=idempotency_key,
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
        there = _first(connection, judgements.c.id == judgement.id)
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
    kinds: Iterable[str],
    idempotency_key: str,
    assignment_id: str | None = None,
    given: dict[str, Any] | None = None,
    comparison: Comparison | None = None,
) -> None:
    """Check a judgement, insert it, and count the item's raters anew."""
    annotator = annotators.find_row(connection, judgement.annotator)
    if annotator["simulated"] != judgement.simulated:
        raise JudgementError(
            f"judgement {judgement.id}: simulated is {judgement.simulated}, and annotator "
            f"{judgement.annotator!r} is stored with {annotator['simulated']}",
            judgement.id,
        )
    try:
        shown = comparison or comparisons.by_id(connection, comparison_id)
        check_judgement(judgement, shown, set(kinds))
    except DataError as error:
        raise JudgementError(str(error), judgement.id) from None
    names = "id supersedes simulated verdict both_bad ranking ratings rewrite rewrite_of skip"
    names += " flags rationale seconds created_at shown_order guideline_version"
    values = {name: getattr(judgement, name) for name in names.split()}
    values |= {"comparison_id": comparison_id, "annotator_id": annotator["id"], "given": given}
    values |= {"assignment_id": assignment_id, "idempotency_key": idempotency_key}
    hashed = judgement_hash(judgement)
    connection.execute(insert(judgements).values(**values, content_hash=hashed))
    recount(connection, comparison_id)


def recount(connection: Connection, comparison_id: int) -> None:
    """Set an item's `num_raters`: the annotators whose standing judgement is no skip."""
    query = (
        select(judgements.c.annotator_id)
        .where(judgements.c.comparison_id == comparison_id, judgements.c.skip.is_(None), standing())
        .distinct()
    )
    number = len(connection.execute(query).all())
    row = comparison_table.c.id == comparison_id
    connection.execute(update(comparison_table).where(row).values(num_raters=number))


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
    comparison_id, comparison = keys.item(judgement)
    if judgement.supersedes is not None:
        _superseded(connection, judgement, comparison_id)
    store(
        connection,
        judgement,
        comparison_id=comparison_id,
        kinds=_kinds(campaign),
        idempotency_key=f"record:{judgement.id}",
        given=given,
        comparison=comparison,
    )
    _close_leases(connection, judgement, comparison_id, now)


def _close_leases(
    connection: Connection, judgement: Judgement, comparison_id: int, now: datetime
) -> None:
    annotator = annotators.find_row(connection, judgement.annotator)
    connection.execute(
        update(assignments)
        .where(
            assignments.c.comparison_id == comparison_id,
            assignments.c.annotator_id == annotator["id"],
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
    row = _first(connection, judgements.c.id == judgement.supersedes)
    if row is None:
        raise JudgementError(f"{where}, which is not in the store", judgement.id)
    if row["annotator"] != judgement.annotator or row["comparison_id"] != comparison_id:
        raise JudgementError(f"{where}, which is another rater's or item's", judgement.id)
    if _first(connection, judgements.c.supersedes == judgement.supersedes) is not None:
        raise JudgementError(f"{where}, which is superseded already", judgement.id)
    return row


def _refuse_when_full(
    connection: Connection, campaign: RowMapping, comparison_id: int, judgement: Judgement
) -> None:
    query = select(comparison_table.c.num_raters).where(comparison_table.c.id == comparison_id)
    if connection.execute(query).scalar_one() >= campaign["overlap"]:
        raise JudgementError(
            f"item {judgement.item!a} was skipped and has been judged by others since; "
            "go on with the next one",
            judgement.id,
        )


def _comparison_id(connection: Connection, campaign: RowMapping, judgement: Judgement) -> int:
    query = select(comparison_table.c.id).where(
        comparison_table.c.campaign_id == campaign["id"], comparison_table.c.item == judgement.item
    )
    key: int | None = connection.execute(query).scalar()
    if key is None:
        raise _no_item(judgement)
    return key


def _no_item(judgement: Judgement) -> JudgementError:
    return JudgementError(
        f"judgement {judgement.id}: campaign {judgement.campaign!r} has no item "
        f"{judgement.item!a}; add its comparison first",
        judgement.id,
    )


def _kinds(campaign: RowMapping) -> list[str]:
    return list(campaign["settings"].get("kinds", [campaign["task"]]))


def _by(connection: Connection, annotator: str) -> ColumnElement[bool]:
    """The SQL condition that a row is an annotator's; by their key, which has an index."""
    query = select(annotator_table.c.id).where(annotator_table.c.name == annotator)
    return judgements.c.annotator_id == (connection.execute(query).scalar() or 0)


def _first(connection: Connection, *conditions: ColumnElement[bool]) -> RowMapping | None:
    return next(iter(_rows(connection, *conditions)), None)


def _rows(
    connection: Connection, *conditions: ColumnElement[bool], limit: int | None = None
) -> Sequence[RowMapping]:
    """Rows with their names in the order of arrival; with `limit` the last so many."""
    query = (
        select(
            judgements,
            comparison_table.c.item,
            campaign_table.c.name.label("campaign"),
            annotator_table.c.name.label("annotator"),
        )
        .select_from(judgements.join(comparison_table).join(campaign_table).join(annotator_table))
        .where(*conditions)
        .order_by(judgements.c.seq if limit is None else judgements.c.seq.desc())
        .limit(limit)
    )
    with decoding():
        rows = connection.execute(query).mappings().all()
    return rows if limit is None else rows[::-1]
