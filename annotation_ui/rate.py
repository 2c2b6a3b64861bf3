"""The work of one rater on one campaign: what is shown next, and how a judgement is written.

Plain functions of the store, without HTTP and without Gradio. What a browser sends is only a
claim: item, sides and ownership are read from the store again before anything is written.
Every write has a key derived from what was shown, so sending it twice writes it once.
"""

import math
import threading
import uuid
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from annotation_ui.answers import Answer, values_of
from rlhf.errors import ConfigError, DataError
from rlhf.feedback.people import originals
from rlhf.feedback.protocols import Protocol, protocol_of, require_answer
from rlhf.feedback.rules import UNDONE, is_taken_back
from rlhf.feedback.store import ConsentNeeded, JudgementError, Store
from rlhf.records import Comparison, Judgement, Purpose

MAX_SECONDS = 24 * 3600.0
_KEY_SPACE = uuid.UUID("5b0c4e0e-7d0f-4d8e-9f5e-2f6f9f0f2c51")

NO_WORK = {
    "consent": "you have not agreed yet to what this campaign tells its raters",
    "paused": "this campaign is paused; your answer is kept in this browser",
    "unqualified": "your answers to the first items were not as expected, so this campaign ends",
    "excluded": "a lead has ended your work on this campaign",
}
"""Why nothing can be saved now, by the rater's standing in the campaign."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What the page says was seen and chosen; `answer` is in screen order."""

    ticket: str
    item: str
    shown_order: tuple[int, ...]
    answer: Answer = field(default_factory=Answer)
    skip: str | None = None
    rationale: str | None = None
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Showing:
    """One item before one rater. `ticket` names the lease, or the judgement being redone."""

    ticket: str
    comparison: Comparison
    shown_order: tuple[int, ...]
    guideline_version: int
    purpose: Purpose = "rate"
    assignment_id: str | None = None
    undone: Judgement | None = None
    previous: Judgement | None = None


class Desk:
    """A store opened on one campaign, for any number of raters and threads."""

    def __init__(self, store: Store, campaign: str) -> None:
        self.store = store
        self.campaign = campaign
        self._comparisons: dict[str, Comparison] = {}

    def comparison(self, item: str) -> Comparison:
        """The comparison of that item; read once, since comparisons never change."""
        if item not in self._comparisons:
            self._comparisons[item] = self.store.comparison(self.campaign, item)
        return self._comparisons[item]

    def protocol(self) -> Protocol:
        """What the campaign asks as its settings stand now: a lead may change them meanwhile."""
        campaign = self.store.campaign(self.campaign)
        return protocol_of(campaign.task, campaign.settings)


class Desks:
    """The desks of a store's campaigns, each made once, when it is first asked for."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._desks: dict[str, Desk] = {}
        self._lock = threading.Lock()

    def desk(self, campaign: str | None) -> Desk:
        """The desk of a campaign; ConfigError when there is none of that name.

        Without a name it is the store's only campaign, and a ConfigError where it has several.
        """
        if campaign is None:
            campaign = self._only()
        with self._lock:
            found = self._desks.get(campaign)
        if found is None:
            found = Desk(self.store, self.store.campaign(campaign).name)
            with self._lock:
                found = self._desks.setdefault(campaign, found)
        return found

    def _only(self) -> str:
        campaigns = originals(self.store.campaigns())
        if len(campaigns) != 1:
            raise ConfigError("this address names no campaign; choose one on the home page")
        return campaigns[0].name


def next_showing(desk: Desk, annotator: str) -> Showing | None:
    """What `annotator` judges now: an item they took back, else their lease, else a new one."""
    try:
        assignment = desk.store.next_assignment(desk.campaign, annotator, counted=False)
    except ConsentNeeded:
        return None
    undone = [row for row in desk.store.undone(desk.campaign, annotator) if _is_open(desk, row)]
    if undone and desk.store.standing_of(desk.campaign, annotator) == "open":
        return _showing_again(desk, undone[-1])
    if assignment is None:
        return None
    return Showing(
        ticket=f"lease {assignment.id}",
        comparison=assignment.comparison,
        shown_order=tuple(assignment.shown_order),
        guideline_version=assignment.guideline_version,
        purpose=assignment.purpose,
        assignment_id=assignment.id,
    )


def _is_open(desk: Desk, undone: Judgement) -> bool:
    """Whether an item that was taken back may still be judged by the same rater.

    Where others have filled its places since, the row is closed with a skip that says so: it
    would otherwise come up for ever, and be refused each time. What checks the rater (gold
    items, retests) has a place for each.
    """
    if undone.purpose != "rate":
        return True
    overlap = desk.store.campaign(desk.campaign).overlap
    if desk.store.num_raters(desk.campaign, undone.item) < overlap:
        return True
    closing_id = _id_for(undone.annotator, f"close {undone.id}")
    closing = replace(
        undone,
        id=closing_id,
        supersedes=undone.id,
        created_at=datetime.now(UTC),
        skip="taken back, and judged by others since",
    )
    desk.store.revise(closing, idempotency_key=closing_id)
    return False


def _showing_again(desk: Desk, undone: Judgement) -> Showing:
    """The item of a judgement that was taken back, on the same sides as before."""
    return Showing(
        ticket=f"redo {undone.id}",
        comparison=desk.comparison(undone.item),
        shown_order=tuple(undone.shown_order),
        guideline_version=desk.store.campaign(desk.campaign).guideline_version,
        purpose=undone.purpose,
        undone=undone,
        previous=desk.store.find_judgement(undone.supersedes or "", undone.annotator),
    )


def submit(desk: Desk, annotator: str, submission: Submission) -> Judgement:
    """The judgement as stored; the one already there when this showing was judged before.

    DataError when the item is not before this annotator, was shown on other sides, or the
    answer is impossible or lacks something that the campaign asks.
    """
    with desk.store.atomically():
        return _submit(desk, annotator, submission)


def _submit(desk: Desk, annotator: str, submission: Submission) -> Judgement:
    judgement_id = _id_for(annotator, submission.ticket)
    if stored := desk.store.find_judgement(judgement_id, annotator):
        return stored
    showing = next_showing(desk, annotator)
    # Another server may have written it while this one waited for the campaign's lock.
    if stored := desk.store.find_judgement(judgement_id, annotator):
        return stored
    # A lease that ran out over lunch is given again for the same item: the work still counts.
    if showing is None and (reason := _why_nothing(desk, annotator)):
        raise DataError(reason)
    if showing is None or showing.comparison.item != submission.item:
        raise DataError("this item is not before you any more; judge the one shown now")
    if showing.shown_order != submission.shown_order:
        raise DataError("this item was shown in another order; judge it as shown now")
    if showing.ticket != submission.ticket:
        judgement_id = _id_for(annotator, showing.ticket)
    judgement = _judgement(desk, annotator, judgement_id, showing, submission)
    require_answer(desk.protocol(), judgement)
    return _write(desk, showing, judgement)


def _why_nothing(desk: Desk, annotator: str) -> str | None:
    return NO_WORK.get(desk.store.standing_of(desk.campaign, annotator))


def _write(desk: Desk, showing: Showing, judgement: Judgement) -> Judgement:
    if showing.assignment_id is None:
        return desk.store.revise(judgement, idempotency_key=judgement.id)
    return desk.store.submit(
        judgement, assignment_id=showing.assignment_id, idempotency_key=judgement.id
    )


def _judgement(
    desk: Desk, annotator: str, judgement_id: str, showing: Showing, submission: Submission
) -> Judgement:
    seconds = _plausible_seconds(submission.seconds)
    if showing.undone is not None:
        seconds += showing.undone.seconds  # the time of the first look belongs to the judgement
    skip = None if submission.skip is None else _skip_reason(submission.skip)
    values = {} if skip is not None else values_of(submission.answer, showing.shown_order)
    if skip is None and not values:
        raise DataError("nothing was chosen; answer first, or skip with a reason")
    return Judgement(
        id=judgement_id,
        campaign=desk.campaign,
        item=showing.comparison.item,
        annotator=annotator,
        simulated=False,
        seconds=seconds,
        created_at=datetime.now(UTC),
        shown_order=showing.shown_order,
        skip=skip,
        rationale=(submission.rationale or "").strip() or None,
        guideline_version=showing.guideline_version,
        supersedes=showing.undone.id if showing.undone else None,
        purpose=showing.purpose,
        **values,
    )


def _skip_reason(words: str) -> str:
    reason = words.strip()
    if not reason:
        raise DataError("a skip needs a reason; choose or write one")
    return f"{reason}." if reason == UNDONE else reason  # that word is ours: see undo


def _plausible_seconds(seconds: float) -> float:
    """Within 0 and a day: the browser's clock is a claim like any other."""
    return min(max(seconds, 0.0), MAX_SECONDS) if math.isfinite(seconds) else 0.0


def undo(desk: Desk, annotator: str, judgement_id: str) -> Judgement:
    """Takes back an own judgement: a superseding row that says so; the item comes up again.

    Taking back what is already taken back changes nothing. DataError for a judgement that is
    not one's own or no longer stands.
    """
    undo_id = _id_for(annotator, f"undo {judgement_id}")
    if stored := desk.store.find_judgement(undo_id, annotator):
        return stored
    found = desk.store.find_judgement(judgement_id, annotator)
    if found is None or found.campaign != desk.campaign or is_taken_back(found):
        raise DataError("that judgement is not yours to take back, or was revised since")
    withdrawn = replace(
        found,
        id=undo_id,
        created_at=datetime.now(UTC),
        verdict=None,
        both_bad=False,
        ranking=None,
        ratings=None,
        rewrite=None,
        rewrite_of=None,
        flags=None,
        rationale=None,
        skip=UNDONE,
        supersedes=found.id,
    )
    try:
        return desk.store.revise(withdrawn, idempotency_key=undo_id)
    except JudgementError:  # it has been superseded
        raise DataError("that judgement is not yours to take back, or was revised since") from None


def _id_for(annotator: str, ticket: str) -> str:
    """The id, and idempotency key, of what this annotator says of this showing."""
    return uuid.uuid5(_KEY_SPACE, f"{annotator}\n{ticket}").hex


def keep_lease(desk: Desk, annotator: str, ticket: str) -> bool:
    """Whether the item of `ticket` is still this rater's; their lease is extended when it is."""
    kind, _, name = ticket.partition(" ")
    return kind != "lease" or desk.store.renew(name, annotator)
