"""Who is at the page: single-use links, and the signed cookie that such a link is traded for."""

import secrets
import threading
from http.cookies import CookieError, SimpleCookie

from itsdangerous import BadSignature, SignatureExpired, URLSafeTimedSerializer

SESSION_LIFETIME_S = 12 * 3600
INVITE_LIFETIME_S = 24 * 3600


class InviteError(Exception):
    """A link that opens nothing; the message is a sentence for the person who followed it."""


class Sessions:
    """Issues and checks links and cookies of one server run.

    The key is made anew for each run, so a cookie or link of an earlier run opens nothing.
    """

    def __init__(self, cookie_name: str, *, lifetime_s: float = SESSION_LIFETIME_S) -> None:
        key = secrets.token_bytes(32)
        self.cookie_name = cookie_name
        self.lifetime_s = lifetime_s
        self._cookies = URLSafeTimedSerializer(key, salt="session")
        self._invites = URLSafeTimedSerializer(key, salt="invite")
        self._unused: set[str] = set()
        self._lock = threading.Lock()

    def invite(self, annotator: str) -> str:
        """A token that lets one browser in, once, as `annotator`."""
        nonce = secrets.token_urlsafe(16)
        with self._lock:
            self._unused.add(nonce)
        return self._invites.dumps([annotator, nonce])

    def redeem(self, token: str) -> str:
        """The annotator that `token` was made for; InviteError when used, expired or forged."""
        try:
            annotator, nonce = self._invites.loads(token, max_age=INVITE_LIFETIME_S)
        except SignatureExpired as error:
            raise InviteError("This link has expired.") from error
        except BadSignature as error:
            raise InviteError("This link is not one that this server printed.") from error
        with self._lock:
            if nonce not in self._unused:
                raise InviteError("This link has been used already: it opens the page once.")
            self._unused.remove(nonce)
        return str(annotator)

    def cookie(self, annotator: str) -> str:
        """The Set-Cookie header that names `annotator` until `lifetime_s` have passed."""
        value = self._cookies.dumps(annotator)
        age = int(self.lifetime_s)
        return f"{self.cookie_name}={value}; Max-Age={age}; Path=/; HttpOnly; SameSite=Lax"

    def annotator(self, cookie_header: str) -> str | None:
        """Whom a request's Cookie header names; None when it is missing, forged or too old."""
        try:
            return str(self._cookies.loads(self._value(cookie_header), max_age=self.lifetime_s))
        except BadSignature:
            return None

    def is_ageing(self, cookie_header: str) -> bool:
        """True past a quarter of the lifetime: time to renew, before work is cut off."""
        try:
            self._cookies.loads(self._value(cookie_header), max_age=self.lifetime_s / 4)
        except SignatureExpired:
            return True
        except BadSignature:
            return False
        return False

    def _value(self, cookie_header: str) -> str:
        try:
            morsel = SimpleCookie(cookie_header).get(self.cookie_name)
        except CookieError:
            return ""
        return morsel.value if morsel else ""
