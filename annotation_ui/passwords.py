"""Passwords: kept as argon2id hashes, tried one at a time, and ever more slowly."""

import math
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from anyio import CapacityLimiter, to_thread
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from rlhf.errors import DataError
from rlhf.feedback.store import Store

MIN_CHARS = 10
MAX_CHARS = 1000
"""Longer ones would let anybody keep the hasher busy."""

FREE_TRIES = {"name": 5, "address": 30}
"""Failures within `WINDOW` before one has to wait. A whole team may share an address."""

WINDOW = timedelta(hours=1)
MAX_WAIT_S = 15 * 60


class ThrottledError(DataError):
    """Too many failures; `wait_s` seconds to go until the next try is looked at."""

    def __init__(self, wait_s: int) -> None:
        unit = f"{math.ceil(wait_s / 60)} minutes" if wait_s > 90 else f"{wait_s} seconds"
        super().__init__(f"Too many attempts have failed. Try again in {unit}.")
        self.wait_s = wait_s


def problem_with_password(password: str, again: str, *, name: str = "") -> str | None:
    """Why a new password will not do, as a sentence for a person; None when it will."""
    if len(password) < MIN_CHARS:
        return f"The password needs at least {MIN_CHARS} characters."
    if len(password) > MAX_CHARS:
        return f"The password may have at most {MAX_CHARS} characters."
    if password != again:
        return "The two passwords are not the same."
    if len(set(password)) < 4 or password.strip().lower() == name.lower():
        return "That password is too easy to guess; choose another."
    return None


@dataclass(slots=True)
class Passwords:
    """Hashes and checks passwords off the event loop, one at a time.

    One hash takes a tenth of a second of all cores (argon2's library defaults, RFC 9106's second
    choice): a crowd signing in must queue, and leave the rating pages their share.
    """

    hasher: PasswordHasher = field(default_factory=PasswordHasher)
    _one_at_a_time: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(1))
    _nobodys_hash: str = ""

    async def hash(self, password: str) -> str:
        """The argon2id hash of a password, with its salt and parameters."""
        return await to_thread.run_sync(self.hasher.hash, password, limiter=self._one_at_a_time)

    async def check(self, store: Store, name: str, password: str, address: str) -> bool:
        """Whether this is the password of an account that may sign in.

        ThrottledError when the name or the address has failed too often. Unknown names take as
        long as known ones. A hash of older parameters is made anew.
        """
        keys = (f"name:{name}", f"address:{address}")
        # Asked twice: before queueing, and again when those ahead in the queue have failed.
        await to_thread.run_sync(_refuse_while_waiting, store, keys)
        return await to_thread.run_sync(
            self._try, store, name, password, keys, limiter=self._one_at_a_time
        )

    def _try(self, store: Store, name: str, password: str, keys: tuple[str, str]) -> bool:
        _refuse_while_waiting(store, keys)
        kept = _hash_of(store, name)
        if not self._matches(kept or self._dummy(), password) or kept is None:
            for key in keys:
                store.record_sign_in_failure(key)
            return False
        store.clear_sign_in_failures(keys[0])
        if self.hasher.check_needs_rehash(kept):
            store.set_password_hash(name, self.hasher.hash(password))
        return True

    def _matches(self, kept: str, password: str) -> bool:
        try:
            return self.hasher.verify(kept, password[:MAX_CHARS])
        except (VerificationError, InvalidHashError):
            return False

    def _dummy(self) -> str:
        """A hash that no password is tried against in earnest, for names that are not there."""
        if not self._nobodys_hash:
            self._nobodys_hash = self.hasher.hash("of nobody")
        return self._nobodys_hash


def _hash_of(store: Store, name: str) -> str | None:
    """The hash of somebody who may sign in; None for all others."""
    kept = store.password_hash(name)
    return kept if kept is not None and not store.account(name).disabled else None


def _refuse_while_waiting(store: Store, keys: tuple[str, ...]) -> None:
    wait_s = max(waiting_time_s(store, key) for key in keys)
    if wait_s > 0:
        raise ThrottledError(wait_s)


def waiting_time_s(store: Store, key: str, *, now: datetime | None = None) -> int:
    """Seconds until another try is looked at; 0 when it would be at once.

    After the free tries the wait doubles with each failure, up to `MAX_WAIT_S`, counted from the
    last failure.
    """
    now = now or datetime.now(UTC)
    failures = store.sign_in_failures(key, since=now - WINDOW, now=now)
    excess = failures - FREE_TRIES[key.partition(":")[0]]
    if excess < 0:
        return 0
    whole = min(2 ** min(excess, 20), MAX_WAIT_S)
    if not store.sign_in_failures(key, since=now - timedelta(seconds=whole), now=now):
        return 0
    return _remaining(store, key, whole, now)


def _remaining(store: Store, key: str, whole: int, now: datetime) -> int:
    """Of a wait of `whole` seconds what is left: by bisection for the age of the last failure."""
    youngest, oldest = 0, whole
    while oldest - youngest > 1:
        middle = (youngest + oldest) // 2
        if store.sign_in_failures(key, since=now - timedelta(seconds=middle), now=now):
            oldest = middle
        else:
            youngest = middle
    return max(1, whole - youngest)
