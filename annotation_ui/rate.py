"""The work of one rater on one campaign: what is shown next, and how a judgement is written.

Plain functions of the store, without HTTP and without Gradio. What a browser sends is only a
claim: item, sides and ownership are read from the store again before anything is written.
Every write has a key derived from what was shown, so sending it twice writes it once.
"""

import math
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from annotation_ui.rendering import render_inert, word_diff
from annotation_ui.scale import choice_of, verdict_of, words_for
from rlhf.errors import DataError
from rlhf.feedback.rules import UNDONE, is_taken_back
from rlhf.feedback.store import JudgementError, OwnProgress, Store
from rlhf.records import Comparison, Judgement, Prompt

NUM_HISTORY = 6
MAX_SECONDS = 24 * 3600.0
_LABELS = {"system": "Instructions to the model", "user": "User", "assistant": "Model"}
_KEY_SPACE = uuid.UUID("5b0c4e0e-7d0f-4d8e-9f5e-2f6f9f0f2c51")


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What the page says was seen and chosen: `choice` is -3 (A, left) to 3 (B, right)."""

    ticket: str
    item: str
    shown_order: tuple[int, ...]
    choice: int | None = None
    both_bad: bool = False
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
    assignment_id: str | None = None
    undone: Judgement | None = None
    previous: Judgement | None = None


class Desk:
    """A store opened on one pairwise campaign, for any number of raters and threads."""

    def __init__(self, store: Store, campaign: str) -> None:
        self.store = store
        self.campaign = campaign
        self._comparisons: dict[str, Comparison] = {}

    def comparison(self, item: str) -> Comparison:
        """The comparison of that item; read once, since comparisons never change."""
        if item not in self._comparisons:
            found = self.store.comparisons(self.campaign)
            self._comparisons = {comparison.item: comparison for comparison in found}
        return self._comparisons[item]


def next_showing(desk: Desk, annotator: str) -> Showing | None:
    """What `annotator` judges now: an item they took back, else their lease, else a new one."""
    undone = [row for row in desk.store.undone(desk.campaign, annotator) if _is_open(desk, row)]
    assignment = desk.store.next_assignment(desk.campaign, annotator, counted=False)
    if undone:
        return _showing_again(desk, undone[-1])
    if assignment is None:
        return None
    return Showing(
        ticket=f"lease {assignment.id}",
        comparison=assignment.comparison,
        shown_order=tuple(assignment.shown_order),
        guideline_version=assignment.guideline_version,
        assignment_id=assignment.id,
    )


def _is_open(desk: Desk, undone: Judgement) -> bool:
    """Whether an item that was taken back may still be judged by the same rater.

    Where others have filled its places since, the row is closed with a skip that says so: it
    would otherwise come up for ever, and be refused each time.
    """
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
        undone=undone,
        previous=desk.store.find_judgement(undone.supersedes or "", undone.annotator),
    )


def submit(desk: Desk, annotator: str, submission: Submission) -> Judgement:
    """The judgement as stored; the one already there when this showing was judged before.

    DataError when the item is not before this annotator, was shown on other sides, or the
    values are impossible.
    """
    with desk.store.atomically():
        return _submit(desk, annotator, submission)


def _submit(desk: Desk, annotator: str, submission: Submission) -> Judgement:
    judgement_id = _id_for(annotator, submission.ticket)
    if stored := desk.store.find_judgement(judgement_id, annotator):
        return stored
    showing = next_showing(desk, annotator)
    # A lease that ran out over lunch is given again for the same item: the work still counts.
    if showing is None or showing.comparison.item != submission.item:
        raise DataError("this pair is not before you any more; judge the one shown now")
    if showing.shown_order != submission.shown_order:
        raise DataError("this pair was shown on other sides; judge it as shown now")
    if showing.ticket != submission.ticket:
        judgement_id = _id_for(annotator, showing.ticket)
    return _write(desk, showing, _judgement(desk, annotator, judgement_id, showing, submission))


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
    skipped = submission.skip is not None
    return Judgement(
        id=judgement_id,
        campaign=desk.campaign,
        item=showing.comparison.item,
        annotator=annotator,
        simulated=False,
        seconds=seconds,
        created_at=datetime.now(UTC),
        shown_order=showing.shown_order,
        verdict=None if skipped else _verdict(submission, showing.shown_order),
        both_bad=submission.both_bad and not skipped,
        skip=_skip_reason(submission.skip) if submission.skip is not None else None,
        rationale=(submission.rationale or "").strip() or None,
        guideline_version=showing.guideline_version,
        supersedes=showing.undone.id if showing.undone else None,
    )


def _verdict(submission: Submission, shown_order: Sequence[int]) -> int:
    if submission.choice is None or not -3 <= submission.choice <= 3:
        raise DataError("no choice between the two was sent; choose one of the seven")
    return verdict_of(submission.choice, shown_order)


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


# ---- what the page shows ---------------------------------------------------------------------


def view(desk: Desk, annotator: str) -> dict[str, Any]:
    """All that the page needs, as JSON: the item, progress, guideline and last judgements."""
    with desk.store.atomically():  # one state of the store, and one transaction instead of ten
        showing = next_showing(desk, annotator)
        own = desk.store.own_progress(desk.campaign, annotator)
        last = desk.store.judgements(desk.campaign, annotator=annotator, limit=NUM_HISTORY)
        guideline = _guideline(desk, showing)
        empty = None if showing else _nothing_left(desk, own)
    num_left = own.num_left + own.num_taken_back if showing else 0
    return {
        "campaign": desk.campaign,
        "annotator": annotator,
        "progress": {"done": own.num_done, "total": own.num_done + num_left},
        "guideline": render_inert(guideline),
        "item": _item(showing) if showing else None,
        "empty": empty,
        "history": [_history_entry(desk, row) for row in reversed(last)],
    }


def _guideline(desk: Desk, showing: Showing | None) -> str:
    """The guideline that the judgement will be recorded under, even when a newer one is out."""
    if showing is None:
        text = desk.store.campaign(desk.campaign).guideline
    else:
        text = desk.store.guideline(desk.campaign, showing.guideline_version)
    return text or "No guideline has been written for this campaign."


def _item(showing: Showing) -> dict[str, Any]:
    shown = [showing.comparison.completions[index] for index in showing.shown_order]
    diffs = word_diff(shown[0].text, shown[1].text)
    return {
        "ticket": showing.ticket,
        "item": showing.comparison.item,
        "shown_order": list(showing.shown_order),
        "turns": _turns(showing.comparison.prompt),
        "completions": [
            {
                "raw": completion.text,
                "html": render_inert(completion.text),
                "diff": diff,
                "ended": completion.ended,
            }
            for completion, diff in zip(shown, diffs, strict=True)
        ],
        "previous": _previous(showing),
    }


def _previous(showing: Showing) -> dict[str, Any] | None:
    """What the rater had said before taking it back, to be changed rather than written anew."""
    before = showing.previous
    if before is None:
        return None
    verdict = before.verdict
    return {
        "choice": None if verdict is None else choice_of(verdict, showing.shown_order),
        "both_bad": before.both_bad,
        "rationale": before.rationale,
    }


def _turns(prompt: Prompt) -> list[dict[str, str]]:
    if isinstance(prompt.content, str):
        return [_turn("user", "Prompt", prompt.content)]
    return [
        _turn(turn["role"], _LABELS.get(turn["role"], turn["role"]), turn["content"])
        for turn in prompt.content
    ]


def _turn(role: str, label: str, text: str) -> dict[str, str]:
    known = role if role in _LABELS else "other"
    return {"role": known, "label": label, "raw": text, "html": render_inert(text)}


def _nothing_left(desk: Desk, own: OwnProgress) -> dict[str, str]:
    """Why no pair is shown: all is done, done by this rater, skipped, or with other raters."""
    progress = desk.store.progress(desk.campaign)
    if progress.num_complete >= progress.num_items:
        text = "Every pair of this campaign has been judged. Thank you."
        return {"title": "All done", "text": text}
    num_open = progress.num_items - progress.num_complete
    pairs = "1 pair waits" if num_open == 1 else f"{num_open} pairs wait"
    if own.num_left:
        text = f"{pairs} for judgements, and other raters have them open now. Look again later."
        return {"title": "Nothing for you right now", "text": text}
    overlap = desk.store.campaign(desk.campaign).overlap
    skipped = f" and skipped {own.num_skipped}" if own.num_skipped else ""
    asked = "1 rater" if overlap == 1 else f"{overlap} different raters"
    text = (
        f"You have judged {own.num_judged}{skipped}: every pair that was yours. {pairs} for "
        f"other raters, since this campaign asks {asked} for each."
    )
    return {"title": "You have done your part", "text": text}


def _history_entry(desk: Desk, row: Judgement) -> dict[str, Any]:
    excerpt = " ".join(desk.comparison(row.item).prompt.text.split())
    words = describe(row)
    return {"id": row.id, "words": words, "prompt": excerpt[:120]}


def describe(judgement: Judgement) -> str:
    """A judgement in the words of the page, sides as they were on screen."""
    if judgement.skip is not None:
        return f"Skipped: {judgement.skip}"
    if judgement.verdict is None:
        return "Judged in another way"
    words = words_for(choice_of(judgement.verdict, judgement.shown_order))
    return f"{words}, both bad" if judgement.both_bad else words
