"""What the page calls: `/api/view`, `/api/judgements`, `/api/undo`. Identity comes from the
session alone; every reply is the state to show next, or `{"error": one line}`."""

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from annotation_ui.rate import Desk, Submission, describe, submit, undo, view
from annotation_ui.scale import choice_of
from rlhf.errors import ConfigError, DataError, RlhfError


class JudgementBody(BaseModel):
    """A judgement as the page sends it: to whom what was shown, and what was chosen.

    `annotator` gives no authority: it keeps a page that was opened by one rater from saving
    under the session of the next.
    """

    model_config = ConfigDict(extra="forbid")

    annotator: str
    campaign: str
    ticket: str = Field(max_length=200)
    item: str
    shown_order: list[int] = Field(max_length=64)
    choice: int | None = Field(default=None, ge=-3, le=3)
    both_bad: bool = False
    skip: str | None = Field(default=None, max_length=1000)
    rationale: str | None = Field(default=None, max_length=20_000)
    seconds: float = Field(default=0.0, ge=0)


class UndoBody(BaseModel):
    """Which judgement is taken back."""

    model_config = ConfigDict(extra="forbid")

    judgement: str = Field(max_length=200)


def rating_routes(desk: Desk) -> APIRouter:
    """The routes of one campaign's rating page."""
    router = APIRouter(prefix="/api")

    @router.get("/view")
    def get_view(request: Request) -> JSONResponse:
        return _answer(lambda: view(desk, request.state.annotator))

    @router.post("/judgements")
    def post_judgement(request: Request, body: JudgementBody) -> JSONResponse:
        return _answer(lambda: _save(desk, request.state.annotator, body))

    @router.post("/undo")
    def post_undo(request: Request, body: UndoBody) -> JSONResponse:
        def take_back() -> dict[str, Any]:
            undo(desk, request.state.annotator, body.judgement)
            return view(desk, request.state.annotator)

        return _answer(take_back)

    return router


def _save(desk: Desk, annotator: str, body: JudgementBody) -> dict[str, Any]:
    if (body.annotator, body.campaign) != (annotator, desk.campaign):
        raise DataError(
            f"this page was opened by {body.annotator!r} for {body.campaign!r}, and you are "
            f"signed in as {annotator!r} for {desk.campaign!r}; judge the pair shown now"
        )
    values = body.model_dump(exclude={"annotator", "campaign"})
    values["shown_order"] = tuple(body.shown_order)
    stored = submit(desk, annotator, Submission(**values))
    note = None
    sent = (body.choice, body.both_bad) if body.skip is None else None
    kept = None
    if stored.verdict is not None:
        kept = (choice_of(stored.verdict, stored.shown_order), stored.both_bad)
    if sent != kept:  # an answer that got lost, then a second thought: the first one stands
        note = f"Already saved: {describe(stored)}"
    return {**view(desk, annotator), "note": note}


def _answer(work: Callable[[], dict[str, Any]]) -> JSONResponse:
    try:
        return JSONResponse(work())
    except (DataError, ConfigError) as error:
        return JSONResponse({"error": " ".join(str(error).split())}, 409)
    except RlhfError as error:
        return JSONResponse({"error": " ".join(str(error).split())}, 503)
