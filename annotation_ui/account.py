"""What a person can see and change of their own account, erasure included."""

import json
from dataclasses import asdict
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from annotation_ui.pages import message_page, plain_page
from annotation_ui.passwords import MIN_CHARS, ThrottledError, problem_with_password
from annotation_ui.sign_in import address_of
from annotation_ui.site import Site
from rlhf.feedback.store import Account

CONFIRMATION = "erase my data"

Text = Annotated[str, Form()]


def account_routes(site: Site) -> APIRouter:
    """`/account` and what its buttons do."""
    router = APIRouter(prefix="/account")

    @router.get("")
    def show(request: Request) -> Response:
        return _account_page(site, request.state.annotator)

    @router.get("/data")
    def data(request: Request) -> Response:
        text = json.dumps(_all_kept(site, request.state.annotator), indent=1, default=str)
        return Response(text, media_type="application/json")

    @router.post("/password")
    async def change_password(
        request: Request, current: Text = "", password: Text = "", again: Text = ""
    ) -> Response:
        return await _change_password(site, request, current, password, again)

    @router.post("/sign-out-everywhere")
    def sign_out_everywhere(request: Request) -> Response:
        cookie = site.sessions.end_all(request.state.annotator)
        return RedirectResponse("/sign-in", 303, {"set-cookie": cookie})

    @router.post("/erase")
    def erase(request: Request, confirm: Text = "") -> Response:
        return _erase(site, request.state.annotator, confirm)

    return router


async def _change_password(
    site: Site, request: Request, current: str, password: str, again: str
) -> Response:
    name = request.state.annotator
    account = await to_thread.run_sync(site.store.account, name)
    if account.has_password:
        try:
            fits = await site.passwords.check(site.store, name, current, address_of(site, request))
        except ThrottledError as error:
            return await _say(site, name, problem=str(error), status=429)
        if not fits:
            return await _say(site, name, problem="That is not your password now.", status=403)
    if problem := problem_with_password(password, again, name=name):
        return await _say(site, name, problem=problem, status=422)
    hashed = await site.passwords.hash(password)
    cookie = await to_thread.run_sync(_replace_password, site, name, hashed)
    page = await _say(site, name, done="The password is changed. Other browsers are signed out.")
    page.headers["set-cookie"] = cookie
    return page


async def _say(site: Site, name: str, **words: Any) -> HTMLResponse:
    return await to_thread.run_sync(lambda: _account_page(site, name, **words))


def _replace_password(site: Site, name: str, hashed: str) -> str:
    """Whoever knew the old one may be signed in with it: every session ends, one begins."""
    site.store.set_password_hash(name, hashed)
    site.sessions.end_all(name)
    return site.sessions.open(name)


def _erase(site: Site, name: str, confirm: str) -> Response:
    if confirm.strip().strip("“”\"'").lower() != CONFIRMATION:
        problem = f"Nothing was erased: type “{CONFIRMATION}” to confirm."
        return _account_page(site, name, problem=problem, status=422)
    cookie = site.sessions.end_all(name)
    site.store.erase_annotator(name)
    site.sessions.forget(name)
    text = (
        "Your name and what you wrote are blanked, and all your sessions have ended. "
        "Thank you for what you gave."
    )
    page = message_page("Your data is erased", text)
    # drafts (reasons, rewrites) lie in the browser: they are the person's words, too
    return HTMLResponse(page, headers={"set-cookie": cookie, "clear-site-data": '"storage"'})


def _account_page(
    site: Site, name: str, *, problem: str = "", done: str = "", status: int = 200
) -> HTMLResponse:
    account = site.store.account(name)
    judged = [
        (campaign.name, own.num_done)
        for campaign in site.store.campaigns()
        if (own := site.store.own_progress(campaign.name, name)).num_done
    ]
    page = plain_page(
        "account",
        "Your account",
        account=account,
        here="account",
        judged=judged,
        problem=problem,
        done=done,
        min_chars=MIN_CHARS,
    )
    return HTMLResponse(page, status)


def _all_kept(site: Site, name: str) -> dict[str, Any]:
    """All that the store holds of a person, superseded judgements too."""
    account: Account = site.store.account(name)
    judgements = site.store.judgements(annotator=name, current_only=False)
    return {"account": asdict(account), "judgements": [asdict(row) for row in judgements]}
