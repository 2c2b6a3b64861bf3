"""People: who may sign in, how they are let in, and how what is known of them is erased."""

from datetime import datetime
from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import Field

from annotation_ui.bodies import Body
from annotation_ui.lead.replies import reply
from annotation_ui.lead.reports import Reports
from rlhf.errors import DataError
from rlhf.feedback.store import Account, Store

MAX_NAME = 100


class InviteBody(Body):
    """A link to be made: for a new person, or, with `annotator`, for one who is there."""

    role: Literal["rater", "lead"] = "rater"
    annotator: str | None = Field(default=None, max_length=MAX_NAME)
    days: int = Field(default=7, ge=1, le=30)


class RevokeBody(Body):
    """Which open invite opens nothing any more."""

    id: int


class RoleBody(Body):
    """A person's role from now on."""

    name: str
    role: Literal["rater", "lead"]


class DisabledBody(Body):
    """Whether a person may sign in."""

    name: str
    disabled: bool


class EraseBody(Body):
    """Whose data is erased; `typed` is the name as the lead wrote it, to be sure."""

    name: str
    typed: str


def routes(store: Store, reports: Reports) -> APIRouter:
    """The routes of the people's tab."""
    router = APIRouter(prefix="/api/lead/people")

    @router.get("")
    def list_people(request: Request) -> JSONResponse:
        return reply(lambda: people(store, request.state.annotator))

    @router.post("/invite")
    def invite(request: Request, body: InviteBody) -> JSONResponse:
        def work() -> dict[str, Any]:
            token = make_invite(store, request.state.annotator, body)
            return {
                **people(store, request.state.annotator),
                "url": f"{request.base_url}join?token={token}",
            }

        return reply(work)

    @router.post("/revoke")
    def revoke(request: Request, body: RevokeBody) -> JSONResponse:
        def work() -> dict[str, Any]:
            store.revoke_invite(body.id)
            return people(store, request.state.annotator)

        return reply(work)

    @router.post("/role")
    def role(request: Request, body: RoleBody) -> JSONResponse:
        def work() -> dict[str, Any]:
            store.set_role(body.name, body.role)
            return people(store, request.state.annotator)

        return reply(work)

    @router.post("/disable")
    def disable(request: Request, body: DisabledBody) -> JSONResponse:
        return reply(lambda: _set_disabled(store, request.state.annotator, body))

    @router.post("/erase")
    def erase(request: Request, body: EraseBody) -> JSONResponse:
        def work() -> dict[str, Any]:
            erased = erase_person(store, request.state.annotator, body)
            reports.forget_all()
            return erased

        return reply(work)

    return router


def people(store: Store, lead: str) -> dict[str, Any]:
    """All accounts, and the invites that are still open (without their secrets)."""
    identified = store.with_identity()
    return {
        "you": lead,
        "accounts": [
            _account(store, account, has_identity=account.name in identified)
            for account in store.accounts()
        ],
        "invites": [
            {
                "id": one.id,
                "role": one.role,
                "annotator": one.annotator,
                "created_by": one.created_by,
                "created_at": one.created_at.isoformat(),
                "expires_at": one.expires_at.isoformat(),
            }
            for one in store.invites()
        ],
    }


def _account(store: Store, account: Account, *, has_identity: bool) -> dict[str, Any]:
    ways = {"password": account.has_password, "OpenID Connect": has_identity}
    return {
        "name": account.name,
        "role": account.role,
        "simulated": account.simulated,
        "ways": [way for way, is_there in ways.items() if is_there],
        "disabled": account.disabled,
        "created_at": account.created_at.isoformat(),
        "last_judged_at": _last_judged(store, account.name),
    }


def _last_judged(store: Store, name: str) -> str | None:
    last = store.judgements(annotator=name, current_only=False, limit=1)
    moment: datetime | None = last[-1].created_at if last else None
    return moment.isoformat() if moment else None


def make_invite(store: Store, lead: str, body: InviteBody) -> str:
    """The secret of a link that opens the tool once; it is shown now and never again."""
    name = (body.annotator or "").strip() or None
    if name is not None and store.account(name).simulated:
        raise DataError(f"{name!r} is a simulated rater: nobody signs in as it")
    lifetime_s = body.days * 86400
    return store.create_invite(
        role=body.role, annotator=name, created_by=lead, lifetime_s=lifetime_s
    )


def _set_disabled(store: Store, lead: str, body: DisabledBody) -> dict[str, Any]:
    if body.name == lead and body.disabled:
        raise DataError("you would shut yourself out; let another lead do that")
    store.set_disabled(body.name, body.disabled)
    if body.disabled:
        store.end_sessions(body.name)
    return people(store, lead)


def erase_person(store: Store, lead: str, body: EraseBody) -> dict[str, Any]:
    """Blank a person's name and words; DataError unless the name was typed as it is."""
    if body.typed != body.name:
        raise DataError(f"type the name exactly as it stands there: {body.name}")
    if body.name == lead:
        raise DataError("you would shut yourself out; let another lead do that")
    store.end_sessions(body.name)
    pseudonym = store.erase_annotator(body.name)
    return {**people(store, lead), "pseudonym": pseudonym}
