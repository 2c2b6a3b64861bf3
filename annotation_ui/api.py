"""What the rating page calls, under `/api`: view, judgements, undo, renew, diff, history, session.

Identity comes from the session alone; a write is answered with the state to show next. Errors are
`{"error": one line}`: 409 for what is refused, 422 for what is no request, 503 for a store that
cannot be reached, 401 (from the guard) without a session.
"""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse
from pydantic import Field

from annotation_ui.answers import Answer, is_same
from annotation_ui.bodies import Body
from annotation_ui.rate import Desk, Desks, Submission, keep_lease, submit, undo
from annotation_ui.view import differences, history, view
from annotation_ui.words import describe
from rlhf.errors import ConfigError, DataError, RlhfError

MAX_COMPLETIONS = 64
_Rank = Annotated[int, Field(ge=1, le=MAX_COMPLETIONS)]


class AnswerBody(Body):
    """What was chosen, in screen order (see answers.Answer); only what was asked is sent."""

    choice: int | None = Field(default=None, ge=-3, le=3)
    both_bad: bool = False
    ranks: list[_Rank] | None = Field(default=None, max_length=MAX_COMPLETIONS)
    ratings: dict[str, list[float | None]] | None = Field(default=None, max_length=100)
    rewrite: str | None = Field(default=None, max_length=100_000)
    rewrite_of: int | None = None
    flags: list[list[str]] | None = Field(default=None, max_length=MAX_COMPLETIONS)


class JudgementBody(Body):
    """A judgement as the page sends it: to whom what was shown, and what was chosen.

    `annotator` gives no authority: it keeps a page that was opened by one rater from saving
    under the session of the next.
    """

    annotator: str
    campaign: str
    ticket: str = Field(max_length=200)
    item: str
    shown_order: list[int] = Field(max_length=MAX_COMPLETIONS)
    answer: AnswerBody = Field(default_factory=AnswerBody)
    skip: str | None = Field(default=None, max_length=1000)
    rationale: str | None = Field(default=None, max_length=20_000)
    seconds: float = Field(default=0.0, ge=0)


class UndoBody(Body):
    """Which judgement is taken back."""

    campaign: str
    judgement: str = Field(max_length=200)


class RenewBody(Body):
    """Which item is still being worked on."""

    campaign: str
    ticket: str = Field(max_length=200)


def rating_routes(desks: Desks) -> APIRouter:
    """The routes of the rating page, for every campaign of a store."""
    router = APIRouter(prefix="/api")
    _add_reading(router, desks)
    _add_writing(router, desks)
    return router


def _add_reading(router: APIRouter, desks: Desks) -> None:
    @router.get("/session")
    def get_session(request: Request) -> JSONResponse:
        return JSONResponse({"annotator": request.state.annotator})

    @router.get("/view")
    def get_view(request: Request, campaign: str | None = None) -> JSONResponse:
        return _reply(lambda: view(desks.desk(campaign), request.state.annotator))

    @router.get("/history")
    def get_history(
        request: Request,
        campaign: str | None = None,
        search: Annotated[str, Query(max_length=200)] = "",
    ) -> JSONResponse:
        return _reply(lambda: history(desks.desk(campaign), request.state.annotator, search))

    @router.get("/diff")
    def get_diff(
        request: Request, ticket: str, base: int, campaign: str | None = None
    ) -> JSONResponse:
        def compare() -> dict[str, Any]:
            desk = desks.desk(campaign)
            return {"diffs": differences(desk, request.state.annotator, ticket, base)}

        return _reply(compare)


def _add_writing(router: APIRouter, desks: Desks) -> None:
    @router.post("/judgements")
    def post_judgement(request: Request, body: JudgementBody) -> JSONResponse:
        return _reply(lambda: _save(desks, request.state.annotator, body))

    @router.post("/undo")
    def post_undo(request: Request, body: UndoBody) -> JSONResponse:
        def take_back() -> dict[str, Any]:
            desk = desks.desk(body.campaign)
            undo(desk, request.state.annotator, body.judgement)
            return view(desk, request.state.annotator)

        return _reply(take_back)

    @router.post("/renew")
    def post_renew(request: Request, body: RenewBody) -> JSONResponse:
        def renew() -> dict[str, Any]:
            desk = desks.desk(body.campaign)
            return {"kept": keep_lease(desk, request.state.annotator, body.ticket)}

        return _reply(renew)


def _save(desks: Desks, annotator: str, body: JudgementBody) -> dict[str, Any]:
    if body.annotator != annotator:
        raise DataError(
            f"this page was opened by {body.annotator!r}, and you are signed in as "
            f"{annotator!r}; judge the item shown now"
        )
    desk = desks.desk(body.campaign)
    sent = body.answer.model_dump(exclude_none=True)
    submission = Submission(
        ticket=body.ticket,
        item=body.item,
        shown_order=tuple(body.shown_order),
        answer=Answer(**sent),  # type: ignore[typeddict-item]
        skip=body.skip,
        rationale=body.rationale,
        seconds=body.seconds,
    )
    return _saved(desk, annotator, submission)


def _saved(desk: Desk, annotator: str, submission: Submission) -> dict[str, Any]:
    stored = submit(desk, annotator, submission)
    sent = {} if submission.skip is not None else submission.answer
    note = None
    if not is_same(sent, stored) or (submission.skip is None) != (stored.skip is None):
        # An answer that got lost, then a second thought: the first one stands.
        note = f"Already saved: {describe(stored, desk.protocol())}"
    return {**view(desk, annotator), "note": note}


def _reply(work: Callable[[], dict[str, Any]]) -> JSONResponse:
    try:
        return JSONResponse(work())
    except (DataError, ConfigError) as error:
        return JSONResponse({"error": " ".join(str(error).split())}, 409)
    except RlhfError as error:
        return JSONResponse({"error": " ".join(str(error).split())}, 503)
