"""The feedback store: what was compared, by whom, and what they said. The only SQL there is."""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Any

from rlhf.feedback.store import (
    annotators,
    assignments,
    campaigns,
    comparisons,
    invariants,
    judgements,
    writing,
)
from rlhf.feedback.store.assignments import display_order
from rlhf.feedback.store.campaigns import MAX_LEASE_S
from rlhf.feedback.store.checking import CheckingStore
from rlhf.feedback.store.comparisons import texts_hash
from rlhf.feedback.store.consents import ConsentNeeded
from rlhf.feedback.store.invites import InviteError
from rlhf.feedback.store.judgements import JudgementError, judgement_hash
from rlhf.feedback.store.opened import moment
from rlhf.feedback.store.people import PeopleStore
from rlhf.feedback.store.records import (
    Account,
    Adjudication,
    Assignment,
    AssignmentRow,
    Campaign,
    Invite,
    OpenInvite,
    OwnProgress,
    Progress,
    RaterDecision,
    Role,
    Standing,
)
from rlhf.records import Annotator, Comparison, Judgement, Purpose, TaskType

__all__ = [
    "MAX_LEASE_S",
    "Account",
    "Adjudication",
    "Assignment",
    "AssignmentRow",
    "Campaign",
    "ConsentNeeded",
    "Invite",
    "InviteError",
    "JudgementError",
    "OpenInvite",
    "OwnProgress",
    "Progress",
    "RaterDecision",
    "Role",
    "Standing",
    "Store",
    "display_order",
    "judgement_hash",
    "texts_hash",
]


class Store(PeopleStore, CheckingStore):
    """One feedback store, for any number of threads; several processes may share it.

    Every method is a transaction: what it returns from is on disk. Errors are DataError for
    values that are refused, ConfigError for names that are not there, StageError for the disk.
    """

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
                now=moment(None),
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
            return campaigns.revise_guideline(connection, campaign, guideline, moment(None))

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
                connection, campaign, settings, overlap=overlap, lease_s=lease_s, now=moment(None)
            )

    def add_comparisons(
        self,
        campaign: str,
        batch: Iterable[Comparison],
        *,
        purpose: Purpose = "rate",
        gold: Mapping[str, dict[str, Any]] | None = None,
    ) -> int:
        """Append items to a campaign; how many were new. An item that is there must be equal.

        `purpose` is rate, gold or qualification; `gold` holds expected answers by item (see
        `rlhf.feedback.gold`), which gold items need.
        """
        with self._database.writing() as connection:
            return comparisons.add(
                connection, campaign, batch, moment(None), purpose=purpose, gold=gold or {}
            )

    def comparisons(self, campaign: str) -> list[Comparison]:
        """The items of a campaign in the order in which they are given out."""
        with self._database.reading() as connection:
            return comparisons.every(connection, campaign)

    def comparison(self, campaign: str, item: str) -> Comparison:
        """One item of a campaign; ConfigError when there is none of that name."""
        with self._database.reading() as connection:
            return comparisons.one(connection, campaign, item)

    def add_annotator(self, annotator: Annotator) -> Annotator:
        """The annotator of that name, made when new; DataError when `simulated` differs."""
        with self._database.writing() as connection:
            return annotators.add(connection, annotator, moment(None))

    def annotators(self) -> list[Annotator]:
        """All annotators, oldest first."""
        with self._database.reading() as connection:
            return annotators.every(connection)

    def erase_annotator(self, name: str) -> str:
        """Blank a person's name and words at their request; the pseudonym put in their place."""
        with self._database.writing() as connection:
            return annotators.erase(connection, name, moment(None))

    def next_assignment(
        self, campaign: str, annotator: str, *, now: datetime | None = None, counted: bool = True
    ) -> Assignment | None:
        """A lease on the next item for this rater, or their open one; None when none is left.

        None also where `standing_of` is paused, unqualified or excluded; ConsentNeeded until
        the rater has agreed to the campaign's consent text. With `counted` false it does not say
        how much they have done and have left.
        """
        with self._database.writing() as connection:
            return assignments.next_assignment(
                connection, campaign, annotator, moment(now), counted=counted
            )

    def renew(self, assignment_id: str, annotator: str, *, now: datetime | None = None) -> bool:
        """Extend a lease while its rater is at it; False when its place is lost."""
        with self._database.writing() as connection:
            return assignments.renew(connection, assignment_id, annotator, moment(now))

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
                now=moment(now),
            )

    def revise(self, judgement: Judgement, *, idempotency_key: str) -> Judgement:
        """Keep a judgement that supersedes an earlier one by the same rater on the same item."""
        with self._database.writing() as connection:
            return writing.revise(connection, judgement, idempotency_key)

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
            return writing.record(connection, batch, given=given or {}, now=moment(now))

    def judgements(
        self,
        campaign: str | None = None,
        *,
        annotator: str | None = None,
        current_only: bool = True,
        limit: int | None = None,
        purposes: Collection[Purpose] | None = None,
    ) -> list[Judgement]:
        """Judgements as they arrived, of those the last `limit`, of all or these `purposes`.

        What was superseded or taken back is there only when `current_only` is false.
        """
        with self._database.reading() as connection:
            return judgements.read(
                connection,
                campaign=campaign,
                annotator=annotator,
                current_only=current_only,
                limit=limit,
                purposes=purposes,
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
