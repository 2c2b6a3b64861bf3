"""Signing in with an OpenID Connect provider: there and back, and which account it opens."""

import time
from typing import Any

from anyio import to_thread
from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from itsdangerous import BadSignature, URLSafeTimedSerializer

from annotation_ui.names import MAX_NAME_CHARS, as_name
from annotation_ui.oidc import Identity, Provider, ProviderError
from annotation_ui.pages import message_page
from annotation_ui.sign_in import enter, own_path
from annotation_ui.site import Site
from rlhf.errors import DataError
from rlhf.feedback.store import InviteError, Store

JOURNEY_S = 600
"""So long somebody may take at the provider."""


def oidc_routes(site: Site) -> APIRouter:
    """`/oidc/start` and `/oidc/callback`; nothing where no provider was configured."""
    router = APIRouter(prefix="/oidc")
    if site.provider is None:
        return router
    journeys = Journeys(site.provider, site.sessions.cookie_name, secure=site.hosts.is_https)

    @router.get("/start")
    async def start(request: Request, next: str = "", token: str = "") -> Response:
        try:
            callback = f"{str(request.base_url).rstrip('/')}/oidc/callback"
            address, kept = await journeys.provider.begin(callback)
        except ProviderError as error:
            return _refused(str(error), 502)
        cookie = journeys.cookie({**kept, "next": own_path(next), "token": token})
        return RedirectResponse(address, 303, {"set-cookie": cookie})

    @router.get("/callback")
    async def callback(request: Request, code: str = "", state: str = "") -> Response:
        return await _come_back(site, journeys, request, code, state)

    return router


class Journeys:
    """Sign-ins under way, kept in a signed cookie of the browser that began them.

    That binds the way back to the way there: an answer that somebody else got opens nothing
    here, and one that was used before on this server neither.
    """

    def __init__(self, provider: Provider, cookie_name: str, *, secure: bool) -> None:
        self.provider = provider
        self.cookie_name = f"{cookie_name}_oidc"
        self._flags = "; Path=/; HttpOnly; SameSite=Lax" + ("; Secure" if secure else "")
        self._signed = URLSafeTimedSerializer(provider.signing_key, salt="oidc")
        self._ended: dict[str, float] = {}

    def cookie(self, kept: dict[str, Any]) -> str:
        """The Set-Cookie header that keeps a journey until it comes back."""
        return f"{self.cookie_name}={self._signed.dumps(kept)}; Max-Age={JOURNEY_S}{self._flags}"

    @property
    def cleared(self) -> str:
        """The Set-Cookie header that ends it."""
        return f"{self.cookie_name}=; Max-Age=0{self._flags}"

    def end(self, cookie: str, state: str) -> dict[str, Any]:
        """What was kept for the journey with this `state`, once; ProviderError otherwise."""
        try:
            kept: dict[str, Any] = self._signed.loads(cookie, max_age=JOURNEY_S)
        except BadSignature:
            raise ProviderError(
                "this sign-in was not begun in this browser, or too long ago"
            ) from None
        if not state or state != kept["state"] or state in self._ended:
            raise ProviderError("this answer belongs to another sign-in, or was used before")
        now = time.time()
        self._ended = {old: at for old, at in self._ended.items() if now - at < JOURNEY_S}
        self._ended[state] = now
        return kept


async def _come_back(
    site: Site, journeys: Journeys, request: Request, code: str, state: str
) -> Response:
    try:
        kept = journeys.end(request.cookies.get(journeys.cookie_name, ""), state)
        if not code:
            raise ProviderError(f"{journeys.provider.name} has not let you in")
        identity = await journeys.provider.finish(kept, code)
        name = await to_thread.run_sync(
            admit, site.store, journeys.provider, identity, kept["token"]
        )
    except DataError as error:
        response: Response = _refused(str(error), 403)
    else:
        onward = kept["next"]
        response = await to_thread.run_sync(enter, site, request, name, onward)
    response.headers.append("set-cookie", journeys.cleared)
    return response


def admit(store: Store, provider: Provider, identity: Identity, token: str) -> str:
    """The account that an identity opens, made now where an invite or the domain lets it in.

    DataError, in a sentence for the person, when nothing does.
    """
    account = store.find_identity(identity.issuer, identity.subject)
    if account is not None:
        if account.disabled:
            raise DataError("Your account is closed. Ask a lead.")
        return account.name
    if not token and not _is_of_domain(identity, provider.domain):
        raise DataError(
            "You have no account here yet. Ask for an invite, and choose "
            f"“Continue with {provider.name}” on its page."
        )
    for name in _names_for(identity, {account.name for account in store.accounts()}):
        try:
            return _make_account(store, identity, name, token)
        except InviteError:
            if token:
                store.read_invite(token)  # it was the link; else the name has just been taken
    raise DataError("No free name was found for you. Ask for an invite.")


def _make_account(store: Store, identity: Identity, name: str, token: str) -> str:
    with store.atomically():
        invite = token or store.create_invite(role="rater", lifetime_s=60)
        account = store.redeem_invite(invite, name=name)
        store.link_identity(account.name, identity.issuer, identity.subject)
    return account.name


def _is_of_domain(identity: Identity, domain: str | None) -> bool:
    if domain is None or identity.email is None:
        return False
    mailbox, _, host = identity.email.rpartition("@")
    return mailbox != "" and host.lower() == domain.lower()


def _names_for(identity: Identity, taken: set[str]) -> list[str]:
    """Some names that an account of this identity could have, the plainest first."""
    readable = "".join(char for char in as_name(identity.name) if char.isprintable())
    base = readable.strip()[: MAX_NAME_CHARS - 4].strip() or "rater"
    names = (base, *(f"{base}-{number}" for number in range(2, 1000)))
    return [name for name in names if name not in taken][:3]


def _refused(reason: str, status: int) -> HTMLResponse:
    sentence = " ".join(reason.split()).rstrip(".")
    text = f"{sentence[0].upper()}{sentence[1:]}."
    page = message_page("You are not signed in", text, link=("/sign-in", "To sign in"))
    return HTMLResponse(page, status)
