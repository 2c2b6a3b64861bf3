"""The store's methods for the quality of labels: consent, gold, decisions, adjudication."""

from datetime import datetime
from typing import Any

from rlhf.feedback.store import (
    adjudications,
    annotators,
    assignments,
    campaigns,
    comparisons,
    consents,
    decisions,
    raters,
)
from rlhf.feedback.store.opened import OpenedStore, moment
from rlhf.feedback.store.records import Adjudication, AssignmentRow, RaterDecision, Standing
from rlhf.records import Judgement, Purpose


class CheckingStore(OpenedStore):
    """What raters agree to, how they are checked, and what leads decide."""

    def agree(
        self, campaign: str, annotator: str, text: str, *, now: datetime | None = None
    ) -> None:
        """Keep that a rater agreed to the consent text; DataError when it is not that text now."""
        with self._database.writing() as connection:
            consents.agree(connection, campaign, annotator, text, moment(now))

    def has_agreed(self, campaign: str, annotator: str) -> bool:
        """Whether a rater agreed to the consent text as it stands; true where there is none."""
        with self._database.reading() as connection:
            row = campaigns.find_row(connection, campaign)
            rater = annotators.find_row(connection, annotator)
            return consents.has_agreed(connection, row, rater["id"])

    def standing_of(self, campaign: str, annotator: str) -> Standing:
        """Whether a campaign is open to a rater, and if not, what is in the way."""
        with self._database.reading() as connection:
            row = campaigns.find_row(connection, campaign)
            return raters.standing_of(connection, row, annotators.find_row(connection, annotator))

    def gold(self, campaign: str) -> dict[str, dict[str, Any]]:
        """The expected answer of each item that has one, by item; see `rlhf.feedback.gold`."""
        with self._database.reading() as connection:
            return comparisons.gold(connection, campaign)

    def purposes(self, campaign: str) -> dict[str, Purpose]:
        """What each item is for, in the order of the items."""
        with self._database.reading() as connection:
            return comparisons.purposes(connection, campaign)

    def set_gold(self, campaign: str, item: str, expected: dict[str, Any] | None) -> None:
        """Make an item a gold one with an expected answer, or with None one to be rated again.

        What was judged before stays as it was.
        """
        with self._database.writing() as connection:
            comparisons.set_gold(connection, campaign, item, expected)

    def decide_on_rater(
        self,
        campaign: str,
        annotator: str,
        *,
        weight: float,
        reason: str,
        decided_by: str,
        reopen: bool = False,
        now: datetime | None = None,
    ) -> None:
        """Record how much a rater's judgements weigh from now on: 0 excludes, 1 restores.

        With `reopen` (weight 0 only) the items they judged want another rater in their place,
        until a later decision takes that back. DataError unless `decided_by` is a lead.
        """
        with self._database.writing() as connection:
            decisions.decide(
                connection,
                campaign,
                annotator,
                weight=weight,
                reason=reason,
                decided_by=decided_by,
                reopen=reopen,
                now=moment(now),
            )

    def rater_decisions(self, campaign: str, *, current_only: bool = True) -> list[RaterDecision]:
        """The decisions on raters, oldest first: those that hold, or all there ever were."""
        with self._database.reading() as connection:
            return decisions.read(connection, campaign, current_only=current_only)

    def rater_weights(self, campaign: str) -> dict[str, float]:
        """The weight of each rater on whom something was decided; the others weigh 1."""
        with self._database.reading() as connection:
            return decisions.weights(connection, campaign)

    def adjudicate(
        self,
        judgement: Judgement,
        *,
        reason: str,
        idempotency_key: str,
        now: datetime | None = None,
    ) -> Judgement:
        """Keep a lead's own judgement as the one that settles its item; it fills no place.

        The judgement as stored, with purpose "adjudication". DataError unless its annotator is a
        lead.
        """
        with self._database.writing() as connection:
            return adjudications.adjudicate(
                connection,
                judgement,
                reason=reason,
                idempotency_key=idempotency_key,
                now=moment(now),
            )

    def withdraw_adjudication(
        self,
        campaign: str,
        item: str,
        *,
        decided_by: str,
        reason: str,
        now: datetime | None = None,
    ) -> None:
        """Put an item's adjudication out of force; DataError when there is none in force."""
        with self._database.writing() as connection:
            adjudications.withdraw(
                connection, campaign, item, decided_by=decided_by, reason=reason, now=moment(now)
            )

    def adjudications(self, campaign: str, *, current_only: bool = True) -> list[Adjudication]:
        """The adjudications in force, or all there ever were with the withdrawals.

        A judgement of purpose "adjudication" counts only while it is named here as in force.
        """
        with self._database.reading() as connection:
            return adjudications.read(connection, campaign, current_only=current_only)

    def assignment_log(self, campaign: str) -> list[AssignmentRow]:
        """Every lease of a campaign, past and present, the oldest first."""
        with self._database.reading() as connection:
            return assignments.log(connection, campaign)

    def guidelines(self, campaign: str) -> list[tuple[int, str, datetime]]:
        """Every version of the guideline, oldest first: its number, text and date."""
        with self._database.reading() as connection:
            return campaigns.guidelines_of(connection, campaign)
