"""The adjudication queue: what raters disagree on, worst first, and the lead's own answer."""

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import Field

from annotation_ui.bodies import Body
from annotation_ui.form import form_of
from annotation_ui.lead.item_view import excerpt, judgement_rows, texts_of
from annotation_ui.lead.items import withdrawn_adjudications
from annotation_ui.lead.replies import reply
from annotation_ui.lead.reports import Reports
from rlhf.errors import DataError
from rlhf.feedback.protocols import recorded_protocol, require_answer
from rlhf.feedback.quality import disagreements
from rlhf.feedback.store import Store
from rlhf.records import Comparison, Judgement

_KEY_SPACE = uuid.UUID("0c8a4f0d-58b8-4f0e-9c0e-2a5b7b9d7e11")


class AnswerBody(Body):
    """A lead's answer in the store's order of completions; `nonce` makes a retry the same write."""

    campaign: str
    item: str
    nonce: str = Field(min_length=8, max_length=100)
    reason: str = Field(max_length=4000)
    seconds: float = Field(default=0.0, ge=0, le=86400)
    verdict: int | None = Field(default=None, ge=-3, le=3)
    both_bad: bool = False
    ranking: list[int] | None = Field(default=None, max_length=64)
    ratings: dict[str, list[float | None]] | None = None
    rewrite: str | None = Field(default=None, max_length=200_000)
    rewrite_of: int | None = None
    flags: list[list[str]] | None = Field(default=None, max_length=64)


class WithdrawBody(Body):
    """Which item's adjudication no longer holds, and why."""

    campaign: str
    item: str
    reason: str = Field(max_length=4000)


def routes(store: Store, reports: Reports) -> APIRouter:
    """The routes of the adjudication queue."""
    router = APIRouter(prefix="/api/lead/disagreements")

    @router.get("")
    def list_disagreements(campaign: str) -> JSONResponse:
        return reply(lambda: reports.get("disagreements", campaign, lambda: queue(store, campaign)))

    @router.get("/one")
    def one_disagreement(campaign: str, item: str, names: bool = False) -> JSONResponse:
        return reply(lambda: case(store, campaign, item, show_names=names))

    @router.post("/answer")
    def answer(request: Request, body: AnswerBody) -> JSONResponse:
        def work() -> dict[str, Any]:
            adjudicate(store, request.state.annotator, body)
            reports.forget(body.campaign)
            return case(store, body.campaign, body.item, show_names=False)

        return reply(work)

    @router.post("/withdraw")
    def withdraw(request: Request, body: WithdrawBody) -> JSONResponse:
        def work() -> dict[str, Any]:
            withdraw_answer(store, request.state.annotator, body)
            reports.forget(body.campaign)
            return case(store, body.campaign, body.item, show_names=False)

        return reply(work)

    return router


def queue(store: Store, campaign: str) -> dict[str, Any]:
    """The items raters disagree on, worst first, those that wait before those decided."""
    prompts = {one.item: one.prompt for one in store.comparisons(campaign)}
    rows: list[dict[str, Any]] = [
        {
            "item": one.item,
            "excerpt": excerpt(prompts[one.item]),
            "num_raters": one.num_raters,
            "num_simulated": one.num_simulated,
            "spread": one.spread,
            "adjudicated": one.adjudicated,
        }
        for one in disagreements(store, campaign)
    ]
    rows.sort(key=lambda row: row["adjudicated"])  # stable: worst first within each
    waiting = sum(not row["adjudicated"] for row in rows)
    return {"items": rows, "num_waiting": waiting}


def case(store: Store, campaign: str, item: str, *, show_names: bool) -> dict[str, Any]:
    """One item with its raters' answers side by side; their names only where asked for."""
    found = store.campaign(campaign)
    comparison = store.comparison(campaign, item)
    rows = [row for row in store.judgements(campaign, current_only=False) if row.item == item]
    protocol = recorded_protocol(found.task, found.settings)
    withdrawn = withdrawn_adjudications(store, campaign, rows)
    names = None if show_names else _blind_names(rows)
    shown = judgement_rows(rows, protocol, names=names, withdrawn=withdrawn)
    answers = [row for row in shown if row["standing"] == "stands"]
    return {
        "item": item,
        "named": show_names,
        "form": form_of(protocol),
        "answers": [row for row in answers if row["purpose"] != "adjudication"],
        "adjudication": _decision(store, campaign, item, answers),
        **texts_of(comparison, blind=not show_names),
    }


def _decision(
    store: Store, campaign: str, item: str, answers: Sequence[dict[str, Any]]
) -> dict[str, Any] | None:
    """The lead's answer in force, with who gave it and why; None when there is none."""
    for one in store.adjudications(campaign):
        if one.item == item and one.judgement_id is not None:
            row = next((row for row in answers if row["id"] == one.judgement_id), None)
            return {
                "decided_by": one.decided_by,
                "reason": one.reason,
                "created_at": one.created_at.isoformat(),
                "words": row["words"] if row else "",
                "values": row["values"] if row else {},
                "rewrite_html": row["rewrite_html"] if row else None,
            }
    return None


def _blind_names(rows: Sequence[Judgement]) -> dict[str, str]:
    """Numbers for raters in the order of their answers here: they say nothing elsewhere."""
    names: dict[str, str] = {}
    for row in rows:
        names.setdefault(row.annotator, f"Rater {len(names) + 1}")
    return names


def adjudicate(store: Store, lead: str, body: AnswerBody) -> None:
    """Record a lead's answer to an item; the same `nonce` again records nothing more."""
    reason = body.reason.strip()
    if not reason:
        raise DataError("an adjudication needs a reason: others will read it")
    found = store.campaign(body.campaign)
    comparison = store.comparison(body.campaign, body.item)
    judgement = _judgement(lead, body, comparison, found.guideline_version, reason)
    require_answer(recorded_protocol(found.task, found.settings), judgement)
    with store.atomically():  # of two leads at once, the second is told of the first
        _refuse_decided(store, judgement)
        store.adjudicate(judgement, reason=reason, idempotency_key=judgement.id)


def _refuse_decided(store: Store, judgement: Judgement) -> None:
    for one in store.adjudications(judgement.campaign):
        if one.item == judgement.item and one.judgement_id != judgement.id:
            raise DataError(
                f"{one.decided_by} has decided this item meanwhile; look at that, and withdraw it "
                "if it is wrong"
            )


def _judgement(
    lead: str, body: AnswerBody, comparison: Comparison, guideline_version: int, reason: str
) -> Judgement:
    key = f"{lead}\n{body.campaign}\n{body.item}\n{body.nonce}"
    ratings = body.ratings
    return Judgement(
        id=uuid.uuid5(_KEY_SPACE, key).hex,
        campaign=body.campaign,
        item=body.item,
        annotator=lead,
        simulated=False,
        seconds=body.seconds,
        created_at=datetime.now(UTC),
        shown_order=tuple(range(len(comparison.completions))),  # leads see the store's order
        verdict=body.verdict,
        both_bad=body.both_bad,
        ranking=None if body.ranking is None else tuple(body.ranking),
        ratings=None if ratings is None else {name: tuple(row) for name, row in ratings.items()},
        rewrite=body.rewrite,
        rewrite_of=body.rewrite_of,
        flags=None if body.flags is None else tuple(tuple(dict.fromkeys(f)) for f in body.flags),
        rationale=reason,
        guideline_version=guideline_version,
        purpose="adjudication",
    )


def withdraw_answer(store: Store, lead: str, body: WithdrawBody) -> None:
    """Record that an item's adjudication no longer holds."""
    reason = body.reason.strip() or "withdrawn"
    store.withdraw_adjudication(body.campaign, body.item, decided_by=lead, reason=reason)
