"""Signing in and out: by password, by a link that works once, or with an OpenID provider.

Looking at a link never uses it up (mail programs fetch links to show a preview): only the
button on its page does.
"""

from typing import Annotated
from urllib.parse import urlsplit

from anyio import to_thread
from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from annotation_ui.names import as_name, problem_with_name
from annotation_ui.pages import message_page, plain_page
from annotation_ui.passwords import MIN_CHARS, ThrottledError, problem_with_password
from annotation_ui.site import Site
from rlhf.errors import DataError
from rlhf.feedback.store import Account, Invite, InviteError

WRONG = "The name or the password is wrong."

Text = Annotated[str, Form()]


def sign_in_routes(site: Site) -> APIRouter:
    """`/sign-in`, `/sign-out` and `/join`."""
    router = APIRouter()

    @router.get("/sign-in")
    def show_sign_in(request: Request, next: str = "") -> Response:
        if request.state.annotator is not None:
            return RedirectResponse(own_path(next), 303)
        return _sign_in_page(site, own_path(next, ""))

    @router.post("/sign-in")
    async def sign_in(
        request: Request, name: Text = "", password: Text = "", next: Text = ""
    ) -> Response:
        name, onward = as_name(name), own_path(next, "")
        try:
            fits = await site.passwords.check(site.store, name, password, address_of(site, request))
        except ThrottledError as error:
            page = _sign_in_page(site, onward, name=name, problem=str(error), status=429)
            page.headers["retry-after"] = str(error.wait_s)
            return page
        if not fits:
            return _sign_in_page(site, onward, name=name, problem=WRONG, status=403)
        return await to_thread.run_sync(enter, site, request, name, onward or "/")

    @router.post("/sign-out")
    def sign_out(request: Request) -> Response:
        cookie = site.sessions.end(request.state.session_token)
        return RedirectResponse("/sign-in", 303, {"set-cookie": cookie})

    @router.get("/join")
    def show_join(request: Request, token: str = "") -> Response:
        try:
            return _join_page(site, token, site.store.read_invite(token))
        except InviteError as error:
            return _refused(error, signed_in=request.state.annotator is not None)

    @router.post("/join")
    async def join(
        request: Request, token: Text = "", name: Text = "", password: Text = "", again: Text = ""
    ) -> Response:
        try:
            return await _join(site, request, token, name, password, again)
        except InviteError as error:
            return _refused(error, signed_in=request.state.annotator is not None)

    return router


async def _join(
    site: Site, request: Request, token: str, name: str, password: str, again: str
) -> Response:
    invite = await to_thread.run_sync(site.store.read_invite, token)
    if invite.annotator is not None:
        account = await to_thread.run_sync(lambda: site.store.redeem_invite(token))
        return await to_thread.run_sync(enter, site, request, account.name, "/")
    name = as_name(name)
    problem = problem_with_name(name) or problem_with_password(password, again, name=name)
    if problem is not None:
        return _join_page(site, token, invite, name=name, problem=problem, status=422)
    hashed = await site.passwords.hash(password)
    try:
        await to_thread.run_sync(_make_account, site, token, name, hashed)
    except DataError as error:
        invite = await to_thread.run_sync(site.store.read_invite, token)
        problem = str(error)  # the link is still good, so it is the name: taken, say
        return _join_page(site, token, invite, name=name, problem=problem, status=409)
    return await to_thread.run_sync(enter, site, request, name, "/")


def _make_account(site: Site, token: str, name: str, hashed: str) -> Account:
    with site.store.atomically():
        account = site.store.redeem_invite(token, name=name)
        site.store.set_password_hash(account.name, hashed)
    return account


def enter(site: Site, request: Request, name: str, onward: str) -> Response:
    """Opens a session for `name` in the asking browser, in place of the one it had."""
    site.sessions.end(request.state.session_token)
    return RedirectResponse(own_path(onward), 303, {"set-cookie": site.sessions.open(name)})


def own_path(path: str, otherwise: str = "/") -> str:
    """`path` where it is one of this server's, else `otherwise`: links must not lead away."""
    parts = urlsplit(path) if path.isprintable() else None
    is_own = parts is not None and not parts.scheme and not parts.netloc and "\\" not in path
    return path if is_own and path.startswith("/") and not path.startswith("//") else otherwise


def address_of(site: Site, request: Request) -> str:
    """Where the request comes from, for counting failures."""
    peer = request.client.host if request.client else ""
    return site.hosts.client_address(peer, request.headers.get("x-forwarded-for", ""))


def _sign_in_page(
    site: Site, onward: str, *, name: str = "", problem: str = "", status: int = 200
) -> HTMLResponse:
    page = plain_page(
        "sign_in",
        "Sign in",
        next=onward,
        name=name,
        problem=problem,
        provider=site.provider.name if site.provider else None,
    )
    return HTMLResponse(page, status)


def _join_page(
    site: Site,
    token: str,
    invite: Invite,
    *,
    name: str = "",
    problem: str = "",
    status: int = 200,
) -> HTMLResponse:
    page = plain_page(
        "join",
        f"Continue as {invite.annotator}" if invite.annotator else "Make your account",
        token=token,
        invite=invite,
        name=name,
        problem=problem,
        min_chars=MIN_CHARS,
        provider=site.provider.name if site.provider else None,
    )
    return HTMLResponse(page, status)


def _refused(error: InviteError, *, signed_in: bool) -> HTMLResponse:
    sentence = " ".join(str(error).split()).rstrip(".")
    link = ("/", "Go on, signed in as before") if signed_in else ("/sign-in", "Sign in")
    return HTMLResponse(message_page("This link opens nothing", f"{sentence}.", link=link), 403)
