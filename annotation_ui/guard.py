"""What stands between the network and the page: every request passes here before anything else.

Gradio's own protections are not enough (its CORS echoes any origin with credentials, its routes
take uploads and list functions), so a plain ASGI layer decides on headers alone: is this host us,
did this page send the write, is the route one we use, and who is asking.
"""

import re
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from annotation_ui.pages import plain_page
from annotation_ui.session import Sessions

MAX_BODY_BYTES = 256 * 1024
PUBLIC_PATHS = frozenset({"/join", "/favicon.ico"})
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

SECURITY_HEADERS = {
    # Gradio's front end needs inline and eval; everything that reaches out is shut.
    "content-security-policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
        "style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self' data:; "
        "connect-src 'self'; form-action 'self'; base-uri 'self'; object-src 'none'; "
        "frame-src 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # Not no-referrer: that makes browsers send "Origin: null", which the write check refuses.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}

UNUSED_ROUTES = re.compile(
    r"/gradio_api/(upload|upload_progress|deep_link|file|proxy|info|openapi|call|component_server|"
    r"process_recording|runs|run-history|startup-events|mcp)([/=.?]|$)"
    r"|/monitoring(/|$)|^/(docs|redoc|openapi\.json)"
)


def is_loopback(host: str) -> bool:
    """True for names and addresses that only this machine can reach."""
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def is_cross_site_write(method: str, headers: Headers) -> bool:
    """True for a write that another page made this browser send."""
    if method in SAFE_METHODS:
        return False
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return True
    origin = headers.get("origin")
    return origin is not None and urlsplit(origin).netloc != headers.get("host", "")


class Guard:
    """ASGI layer: refuses by header, lets through requests with a session, sets safe headers.

    The annotator that the session cookie names is put in `request.state.annotator`.
    """

    def __init__(self, app: ASGIApp, sessions: Sessions) -> None:
        self.app = app
        self.sessions = sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # we speak no websockets
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = Headers(scope=scope)
        refusal = self._refusal(scope, headers)
        renewed = None if refusal else self._renewed_cookie(scope, headers)
        await (refusal or self.app)(scope, receive, _with_safe_headers(send, renewed))

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        """The answer to a request that goes no further, or None for one that may pass."""
        method, path = scope["method"], scope["path"]
        if not is_loopback(_host_name(headers)):
            return JSONResponse({"error": "this host name is not served here"}, 403)
        if is_cross_site_write(method, headers):
            return JSONResponse({"error": "writes from other pages are refused"}, 403)
        if UNUSED_ROUTES.search(path):
            return JSONResponse({"error": "not found"}, 404)
        if method not in SAFE_METHODS and (problem := _body_problem(headers)):
            return JSONResponse({"error": problem}, 413)
        annotator = self.sessions.annotator(headers.get("cookie", ""))
        scope.setdefault("state", {})["annotator"] = annotator
        if annotator is None and path not in PUBLIC_PATHS:
            return _signed_out(method, headers)
        return None

    def _renewed_cookie(self, scope: Scope, headers: Headers) -> str | None:
        annotator = scope["state"]["annotator"]
        if annotator is None or not self.sessions.is_ageing(headers.get("cookie", "")):
            return None
        return self.sessions.cookie(annotator)


def _host_name(headers: Headers) -> str:
    """The Host header without its port: a rebound DNS name shows up here."""
    try:
        return urlsplit(f"//{headers.get('host', '')}").hostname or ""
    except ValueError:
        return ""


def _body_problem(headers: Headers) -> str | None:
    length = headers.get("content-length", "")
    if not length.isdecimal():
        return None if "transfer-encoding" not in headers else "send the length of the body"
    return f"more than {MAX_BODY_BYTES} bytes" if int(length) > MAX_BODY_BYTES else None


def _signed_out(method: str, headers: Headers) -> Response:
    if method == "GET" and "text/html" in headers.get("accept", ""):
        return HTMLResponse(plain_page(*SIGNED_OUT), 401)
    return JSONResponse({"error": "signed out"}, 401)


SIGNED_OUT = (
    "Open the printed link",
    "This page opens through the link that the server printed in the terminal when it started. "
    "It works once. If it has been used, stop the server and start it again for a new one.",
)


def _with_safe_headers(send: Send, cookie: str | None) -> Send:
    async def send_safely(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in SECURITY_HEADERS.items():
                headers[name] = value
            if headers.get("content-type", "").startswith(("text/html", "application/json")):
                headers["cache-control"] = "no-store"
            if cookie is not None:
                headers.append("set-cookie", cookie)
        await send(message)

    return send_safely
