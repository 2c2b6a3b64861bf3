"""The feedback store: what was compared, by whom, and what they said. The only SQL there is."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from rlhf.feedback.store import (
    annotators,
    assignments,
    campaigns,
    comparisons,
    invariants,
    judgements,
)
from rlhf.feedback.store.assignments import display_order
from rlhf.feedback.store.campaigns import MAX_LEASE_S
from rlhf.feedback.store.comparisons import texts_hash
from rlhf.feedback.store.database import Database
from rlhf.feedback.store.judgements import JudgementError, judgement_hash
from rlhf.feedback.store.opening import open_database
from rlhf.feedback.store.records import Assignment, Campaign, OwnProgress, Progress
from rlhf.records import Annotator, Comparison, Judgement, TaskType

__all__ = [
    "MAX_LEASE_S",
    "Assignment",
    "Campaign",
    "JudgementError",
    "OwnProgress",
    "Progress",
    "Store",
    "display_order",
    "judgement_hash",
    "texts_hash",
]


class Store:
    """One feedback store, for any number of threads; several processes may share it.

    Every method is a transaction: what it returns from is on disk. Errors are DataError for
    values that are refused, ConfigError for names that are not there, StageError for the disk.
    """

    def __init__(self, database: Database):
        self._database = database

    @classmethod
    def open(cls, location: str | Path, *, create: bool = False) -> "Store":
        """The store at a SQLite path or database URL, brought to the newest version.

        Raises ConfigError when there is none (and `create` is false), DataError when the file
        is damaged, another program's, or written by a newer version; it is then left as it was.
        """
        return cls(open_database(location, create=create))

    @property
    def location(self) -> str:
        """The path or URL (without its password) that the store was opened at."""
        return self._database.where

    def close(self) -> None:
        """Give back the connections; a closed store is opened again by its next use."""
        self._database.close()

    def __enter__(self) -> "Store":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @contextmanager
    def atomically(self) -> Iterator[None]:
        """Make all writes of this thread within the block one: kept whole, or not at all."""
        with self._database.writing():
            yield

    def create_campaign(
        self,
        name: str,
        *,
        task: TaskType = "pairwise",
        overlap: int = 1,
        lease_s: float = 1800,
        guideline: str = "",
        settings: dict[str, Any] | None = None,
        seed: int = 0,
    ) -> Campaign:
        """A new campaign, or the one of that name; ConfigError when its settings differ."""
        with self._database.writing() as connection:
            return campaigns.create(
                connection,
                name=name,
                task=task,
                overlap=overlap,
                lease_s=float(lease_s),
                guideline=guideline,
                settings=settings or {},
                seed=seed,
                now=_now(None),
            )

    def campaigns(self) -> list[Campaign]:
        """All campaigns, oldest first."""
        with self._database.reading() as connection:
            return campaigns.every(connection)

    def campaign(self, name: str) -> Campaign:
        """The campaign of that name; ConfigError names the nearest when there is none."""
        with self._database.reading() as connection:
            return campaigns.get(connection, name)

    def guideline(self, campaign: str, version: int) -> str:
        """The guideline as it stood in `version` ("" when there was no such version)."""
        with self._database.reading() as connection:
            key = campaigns.find_row(connection, campaign)["id"]
            return campaigns.guideline(connection, key, version)

    def revise_guideline(self, campaign: str, guideline: str) -> Campaign:
        """Put a new version of the guideline in force; older judgements keep theirs."""
        with self._database.writing() as connection:
            return campaigns.revise_guideline(connection, campaign, guideline, _now(None))

    def change_settings(
        self,
        campaign: str,
        settings: Mapping[str, Any],
        *,
        overlap: int | None = None,
        lease_s: float | None = None,
    ) -> Campaign:
        """Replace the campaign's free settings and, where given, its overlap and lease.

        The former overlap and lease are kept in the settings, under `earlier`.
        """
        with self._database.writing() as connection:
            return campaigns.change_settings(
                connection, campaign, settings, overlap=overlap, lease_s=lease_s, now=_now(None)
            )

    def add_comparisons(self, campaign: str, batch: Iterable[Comparison]) -> int:
        """Append items to a campaign; how many were new. An item that is there must be equal."""
        with self._database.writing() as connection:
            return comparisons.add(connection, campaign, batch, _now(None))

    def comparisons(self, campaign: str) -> list[Comparison]:
        """The items of a campaign in the order in which they are given out."""
        with self._database.reading() as connection:
            return comparisons.every(connection, campaign)

    def add_annotator(self, annotator: Annotator) -> Annotator:
        """The annotator of that name, made when new; DataError when `simulated` differs."""
        with self._database.writing() as connection:
            return annotators.add(connection, annotator, _now(None))

    def annotators(self) -> list[Annotator]:
        """All annotators, oldest first."""
        with self._database.reading() as connection:
            return annotators.every(connection)

    def erase_annotator(self, name: str) -> str:
        """Blank a person's name and words at their request; the pseudonym put in their place."""
        with self._database.writing() as connection:
            return annotators.erase(connection, name, _now(None))

    def next_assignment(
        self, campaign: str, annotator: str, *, now: datetime | None = None, counted: bool = True
    ) -> Assignment | None:
        """A lease on the next item for this rater, or their open one; None when none is left.

        With `counted` false it does not say how much they have done and have left.
        """
        with self._database.writing() as connection:
            return assignments.next_assignment(
                connection, campaign, annotator, _now(now), counted=counted
            )

    def renew(self, assignment_id: str, annotator: str, *, now: datetime | None = None) -> bool:
        """Extend a lease while its rater is at it; False when its place is lost."""
        with self._database.writing() as connection:
            return assignments.renew(connection, assignment_id, annotator, _now(now))

    def submit(
        self,
        judgement: Judgement,
        *,
        assignment_id: str,
        idempotency_key: str,
        now: datetime | None = None,
    ) -> Judgement:
        """Keep a judgement and close its lease; a retry with the same key changes nothing.

        A lease that ran out still counts while nobody else has taken its place. Raises DataError
        when the lease is another's, closed, or for another item, or when values do not fit.
        """
        with self._database.writing() as connection:
            return assignments.submit(
                connection,
                judgement,
                assignment_id=assignment_id,
                idempotency_key=idempotency_key,
                now=_now(now),
            )

    def revise(self, judgement: Judgement, *, idempotency_key: str) -> Judgement:
        """Keep a judgement that supersedes an earlier one by the same rater on the same item."""
        with self._database.writing() as connection:
            return judgements.revise(connection, judgement, idempotency_key)

    def record(
        self,
        batch: Iterable[Judgement],
        *,
        given: Mapping[str, dict[str, Any]] | None = None,
        now: datetime | None = None,
    ) -> int:
        """Append judgements made without leases (imports, simulated raters); how many were new.

        All or none: JudgementError names the one that is refused.
        """
        with self._database.writing() as connection:
            return judgements.record(connection, batch, given=given or {}, now=_now(now))

    def judgements(
        self,
        campaign: str | None = None,
        *,
        annotator: str | None = None,
        current_only: bool = True,
        limit: int | None = None,
    ) -> list[Judgement]:
        """Judgements as they arrived, of those the last `limit`.

        What was superseded or taken back is there only when `current_only` is false.
        """
        with self._database.reading() as connection:
            return judgements.read(
                connection,
                campaign=campaign,
                annotator=annotator,
                current_only=current_only,
                limit=limit,
            )

    def find_judgement(self, judgement_id: str, annotator: str) -> Judgement | None:
        """An annotator's own judgement by its id, superseded or not; None when it is not theirs."""
        with self._database.reading() as connection:
            return judgements.find(connection, judgement_id, annotator)

    def undone(self, campaign: str, annotator: str) -> list[Judgement]:
        """The rows by which an annotator took judgements back that they have not given anew."""
        with self._database.reading() as connection:
            return judgements.undone(connection, campaign, annotator)

    def num_raters(self, campaign: str, item: str) -> int:
        """How many annotators have judged an item; skips and what was taken back do not count."""
        with self._database.reading() as connection:
            return judgements.num_raters(connection, campaign, item)

    def own_progress(self, campaign: str, annotator: str) -> OwnProgress:
        """How far one annotator has come in a campaign."""
        with self._database.reading() as connection:
            return assignments.own_progress(connection, campaign, annotator)

    def given(self, campaign: str) -> dict[str, dict[str, Any]]:
        """Per judgement id what its imported line said in other words (see interchange)."""
        with self._database.reading() as connection:
            return judgements.given(connection, campaign)

    def progress(self, campaign: str) -> Progress:
        """How far a campaign has come."""
        with self._database.reading() as connection:
            return campaigns.progress(connection, campaign)

    def problems(self) -> list[str]:
        """Every broken invariant of the store, a line each; empty for a whole store."""
        with self._database.reading() as connection:
            return invariants.problems(connection)


def _now(now: datetime | None) -> datetime:
    return datetime.now(UTC) if now is None else now
