"""Who is at the page: an opaque token in a cookie, which only the store can turn into a name."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from rlhf.feedback.store import Account, Store

SESSION_LIFETIME_S = 12 * 3600
CACHE_S = 5.0
"""So long a session that another server ended may still pass here, where little is at stake."""

_MAX_CACHED = 10_000


@dataclass(slots=True)
class _Seen:
    account: Account
    read_at: float
    extended_at: float


class Sessions:
    """The sessions of one server: opened in, looked up in and ended in the store.

    The store keeps a hash of each token, so neither it nor a copy of it opens anything. What was
    read is kept for `CACHE_S`; what is ended through this object ends at once. `secure` is for
    servers that are reached by https.
    """

    def __init__(
        self,
        store: Store,
        cookie_name: str,
        *,
        secure: bool = False,
        lifetime_s: float = SESSION_LIFETIME_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.store = store
        # Browsers take a cookie of that prefix only over https and from this very host.
        self.cookie_name = f"__Host-{cookie_name}" if secure else cookie_name
        self.secure = secure
        self.lifetime_s = lifetime_s
        self._clock = clock
        self._seen: dict[str, _Seen] = {}
        self._lock = threading.Lock()

    def open(self, name: str) -> str:
        """A new session of the account `name`, as the Set-Cookie header that begins it."""
        token = self.store.open_session(name, lifetime_s=self.lifetime_s, now=self._now())
        account = self.store.session(token, now=self._now())
        if account is not None:
            self._remember(token, account, extended=True)
        return self._cookie(token, int(self.lifetime_s))

    def token(self, cookie_header: str) -> str | None:
        """The session token in a Cookie header.

        Read by hand: the standard library gives up at the first odd cookie of a neighbour.
        """
        for part in cookie_header.split(";"):
            name, _, value = part.strip().partition("=")
            if name == self.cookie_name and value and value.isascii():
                return value
        return None

    def seen_lately(self, token: str) -> Account | None:
        """Whose session it is, where that was read within `CACHE_S`."""
        seen = self._seen.get(token)
        return seen.account if seen and 0 <= self._clock() - seen.read_at < CACHE_S else None

    def account(self, token: str) -> Account | None:
        """Whose session it is, from the store; None when it is forged, ended or too old."""
        account = self.store.session(token, now=self._now())
        if account is None:
            self._forget(lambda seen_token, _: seen_token == token)
        else:
            self._remember(token, account)
        return account

    def is_ageing(self, token: str) -> bool:
        """True a quarter of the lifetime after it was last extended, as far as known here."""
        seen = self._seen.get(token)
        return seen is not None and self._clock() - seen.extended_at > self.lifetime_s / 4

    def renew(self, token: str) -> str:
        """Extends a session to a whole lifetime from now; the header that says so."""
        self.store.extend_session(token, lifetime_s=self.lifetime_s, now=self._now())
        with self._lock:
            if token in self._seen:
                self._seen[token].extended_at = self._clock()
        return self._cookie(token, int(self.lifetime_s))

    def end(self, token: str | None) -> str:
        """Ends this session, and no other of the same person; the header that clears the cookie."""
        if token is not None:
            self.store.end_session(token)
            self._forget(lambda seen_token, _: seen_token == token)
        return self._cookie("", 0)

    def end_all(self, name: str) -> str:
        """Ends every session of an account, on all servers; the header that clears the cookie."""
        self.store.end_sessions(name)
        self.forget(name)
        return self._cookie("", 0)

    def forget(self, name: str) -> None:
        """Drops what is remembered here of an account, so that the store is asked again."""
        self._forget(lambda _, seen: seen.account.name == name)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)

    def _remember(self, token: str, account: Account, *, extended: bool = False) -> None:
        now = self._clock()
        with self._lock:
            seen = self._seen.pop(token, None)
            # Of a session that another server opened the age is unknown: extend it soon.
            extended_at = now if extended else seen.extended_at if seen else 0.0
            self._seen[token] = _Seen(account, now, extended_at)
            while len(self._seen) > _MAX_CACHED:
                del self._seen[next(iter(self._seen))]

    def _forget(self, is_over: Callable[[str, _Seen], bool]) -> None:
        with self._lock:
            self._seen = {
                token: seen for token, seen in self._seen.items() if not is_over(token, seen)
            }

    def _cookie(self, value: str, age_s: int) -> str:
        flags = "; Path=/; HttpOnly; SameSite=Lax" + ("; Secure" if self.secure else "")
        return f"{self.cookie_name}={value}; Max-Age={age_s}{flags}"
