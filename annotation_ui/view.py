"""What the page shows, as JSON: the item, what is asked of it, progress, guideline and history."""

from typing import Any
from urllib.parse import quote

from annotation_ui.answers import answer_of
from annotation_ui.form import form_of
from annotation_ui.rate import Desk, Showing, next_showing
from annotation_ui.rendering import render_guideline, render_inert, word_diff
from annotation_ui.words import describe
from rlhf.errors import DataError
from rlhf.feedback.protocols import Protocol, protocol_of
from rlhf.feedback.store import OwnProgress
from rlhf.records import Completion, Judgement, Prompt

NUM_HISTORY = 6
"""So many of the last judgements stand beside the work."""

NUM_SEARCHED = 50
"""So many are listed when the rater asks for all."""

MAX_RENEW_MS = 60_000
_LABELS = {"system": "Instructions to the model", "user": "User", "assistant": "Model"}


def view(desk: Desk, annotator: str) -> dict[str, Any]:
    """All that the page needs for what `annotator` judges now.

    `item` is None where there is nothing, and `empty` then says why and where to go on.
    """
    with desk.store.atomically():
        showing = next_showing(desk, annotator)
    # Only the above writes: what follows keeps no other rater waiting.
    with desk.store.snapshot():
        campaign = desk.store.campaign(desk.campaign)
        own = desk.store.own_progress(desk.campaign, annotator)
        last = desk.store.judgements(desk.campaign, annotator=annotator, limit=NUM_HISTORY)
        version = showing.guideline_version if showing else campaign.guideline_version
        guideline = _guideline(desk, version)
        empty = None if showing else nothing_left(desk, annotator, own)
    protocol = protocol_of(campaign.task, campaign.settings)
    num_left = own.num_left + own.num_taken_back if showing else 0
    return {
        "campaign": desk.campaign,
        "title": protocol.title or desk.campaign,
        "annotator": annotator,
        "form": form_of(protocol),
        "progress": {"done": own.num_done, "total": own.num_done + num_left},
        "guideline": render_guideline(guideline),
        "guideline_version": version,
        "guideline_seen": last[-1].guideline_version if last else None,
        "renew_ms": min(MAX_RENEW_MS, int(campaign.lease_s * 1000 / 3)),
        "item": _item(showing) if showing else None,
        "empty": empty,
        "history": [_history_entry(desk, row, protocol) for row in reversed(last)],
    }


def _guideline(desk: Desk, version: int) -> str:
    """The guideline that the judgement will be recorded under, even when a newer one is out."""
    text = desk.store.guideline(desk.campaign, version)
    return text or "No guideline has been written for this campaign."


def _item(showing: Showing) -> dict[str, Any]:
    shown = _shown(showing)
    # Between more than two, differences are asked for against one of them (see `differences`).
    diffs = word_diff(shown[0].text, shown[1].text) if len(shown) == 2 else [None] * len(shown)
    return {
        "ticket": showing.ticket,
        "item": showing.comparison.item,
        "shown_order": list(showing.shown_order),
        "turns": turns_of(showing.comparison.prompt),
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


def _shown(showing: Showing) -> list[Completion]:
    return [showing.comparison.completions[index] for index in showing.shown_order]


def _previous(showing: Showing) -> dict[str, Any] | None:
    """What the rater had said before taking it back, to be changed rather than written anew."""
    if showing.previous is None:
        return None
    return {**answer_of(showing.previous), "rationale": showing.previous.rationale}


def differences(desk: Desk, annotator: str, ticket: str, base: int) -> list[list[Any]]:
    """Per completion shown, its segments against the one at place `base` on screen.

    DataError when that item is not before this annotator.
    """
    showing = next_showing(desk, annotator)
    if showing is None or showing.ticket != ticket:
        raise DataError("that item is not before you any more")
    shown = _shown(showing)
    if not 0 <= base < len(shown):
        raise DataError(f"there is no completion {base} to compare with")
    return [
        [(one.text, False)]
        if place == base and one.text
        else word_diff(shown[base].text, one.text)[1]
        for place, one in enumerate(shown)
    ]


def turns_of(prompt: Prompt) -> list[dict[str, str]]:
    """The turns of a prompt, each with what to call it, raw and as inert HTML."""
    if isinstance(prompt.content, str):
        return [_turn("user", "Prompt", prompt.content)]
    return [
        _turn(turn["role"], _LABELS.get(turn["role"], turn["role"]), turn["content"])
        for turn in prompt.content
    ]


def _turn(role: str, label: str, text: str) -> dict[str, str]:
    known = role if role in _LABELS else "other"
    return {"role": known, "label": label, "raw": text, "html": render_inert(text)}


# ---- why there is nothing to judge -----------------------------------------------------------

HOME = ("/campaigns", "All campaigns")


def nothing_left(desk: Desk, annotator: str, own: OwnProgress) -> dict[str, Any]:
    """Why no item is shown: {"title", "text", "link": (address, words)}."""
    standing = desk.store.standing_of(desk.campaign, annotator)
    if standing == "consent":
        return _empty(
            "Before you begin",
            "This campaign has something to tell its raters first. Read it, and agree if you do.",
            (f"/consent?campaign={quote(desk.campaign)}", "Read it"),
        )
    if standing == "paused":
        return _empty("Paused", "A lead has paused this campaign. What you have done is saved.")
    if standing == "unqualified":
        return _empty(
            "Thank you",
            "Your answers to the first items differ from what this campaign expects, so it gives "
            "you no more of them. A lead can let you in.",
        )
    if standing == "excluded":
        return _empty("Thank you", "A lead has ended your work on this campaign. Ask them why.")
    return _done(desk, own)


def _done(desk: Desk, own: OwnProgress) -> dict[str, Any]:
    """All is done, done by this rater, skipped, or with other raters."""
    progress = desk.store.progress(desk.campaign)
    if not progress.num_items:
        return _empty("Nothing here yet", "This campaign has no items. Look again later.")
    if progress.num_complete >= progress.num_items:
        return _empty("All done", "Every item of this campaign has been judged. Thank you.")
    num_open = progress.num_items - progress.num_complete
    items = "1 item waits" if num_open == 1 else f"{num_open} items wait"
    if own.num_left:
        text = f"{items} for judgements, and other raters have them open now. Look again later."
        return _empty("Nothing for you right now", text)
    overlap = desk.store.campaign(desk.campaign).overlap
    skipped = f" and skipped {own.num_skipped}" if own.num_skipped else ""
    asked = "1 rater" if overlap == 1 else f"{overlap} different raters"
    text = (
        f"You have judged {own.num_judged}{skipped}: every item that was yours. {items} for "
        f"other raters, since this campaign asks {asked} for each."
    )
    return _empty("You have done your part", text)


def _empty(title: str, text: str, link: tuple[str, str] = HOME) -> dict[str, Any]:
    return {"title": title, "text": text, "link": list(link)}


# ---- what was judged before ------------------------------------------------------------------


def history(desk: Desk, annotator: str, search: str = "") -> dict[str, Any]:
    """The rater's last judgements that hold every word of `search`, newest first, and a note."""
    protocol = desk.protocol()
    rows = desk.store.judgements(desk.campaign, annotator=annotator)
    found = [row for row in reversed(rows) if _holds(desk, row, protocol, search)]
    listed = found[:NUM_SEARCHED]
    if len(found) > len(listed):
        note = f"The last {len(listed)} of {len(found)}; search for others."
    else:
        note = f"{len(found)} of your {len(rows)} judgements" if search.strip() else ""
    return {"history": [_history_entry(desk, row, protocol) for row in listed], "note": note}


def _holds(desk: Desk, row: Judgement, protocol: Protocol, search: str) -> bool:
    wanted = search.casefold().split()
    if not wanted:
        return True
    said = (desk.comparison(row.item).prompt.text, describe(row, protocol), row.rationale or "")
    text = "\n".join(said).casefold()
    return all(word in text for word in wanted)


def _history_entry(desk: Desk, row: Judgement, protocol: Protocol) -> dict[str, Any]:
    excerpt = " ".join(desk.comparison(row.item).prompt.text.split())
    return {"id": row.id, "words": describe(row, protocol), "prompt": excerpt[:120]}
