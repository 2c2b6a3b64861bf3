"""Reports of campaigns that are made once for all who look, and only when something changed."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

from rlhf.feedback.store import Store

FRESH_S = 5.0
"""A report this young is shown again without asking the store anything."""

REST = 20.0
"""And one that took long, for so many times as long: reports take a twentieth of a core at most."""

LASTING_S = 60.0
"""A report is made anew after so long even if nothing changed: forecasts speak of now."""

MAX_KEPT = 64


@dataclass(slots=True)
class _Entry:
    """The newest report of one kind for one campaign."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    report: Any = None
    state: Hashable = None
    fresh_until: float = float("-inf")
    made_at: float = float("-inf")


class Reports:
    """Keeps reports for any number of threads; `clock` is seconds that only go forward.

    While one thread makes a report, others are given the one before; only where there is none
    yet do they wait. So ten leads cost as much as one.
    """

    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._entries: OrderedDict[tuple[str, str], _Entry] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, kind: str, campaign: str, make: Callable[[], Any]) -> Any:
        """The report `kind` of `campaign`, made by `make` when there is no fresh one."""
        entry = self._entry(kind, campaign)
        if self._clock() < entry.fresh_until:
            return entry.report
        if not entry.lock.acquire(blocking=entry.report is None):
            return entry.report
        try:
            return self._renewed(entry, campaign, make)
        finally:
            entry.lock.release()

    def forget(self, campaign: str) -> None:
        """Make every report of `campaign` anew at its next asking, since something was decided."""
        with self._lock:
            for key in [key for key in self._entries if key[1] == campaign]:
                del self._entries[key]

    def forget_all(self) -> None:
        """Make every report anew: somebody was erased, and no report may go on naming them."""
        with self._lock:
            self._entries.clear()

    def _entry(self, kind: str, campaign: str) -> _Entry:
        with self._lock:
            entry = self._entries.setdefault((kind, campaign), _Entry())
            self._entries.move_to_end((kind, campaign))
            while len(self._entries) > MAX_KEPT:
                self._entries.popitem(last=False)
            return entry

    def _renewed(self, entry: _Entry, campaign: str, make: Callable[[], Any]) -> Any:
        begun = self._clock()
        if begun < entry.fresh_until:  # another thread made it meanwhile
            return entry.report
        state = state_of(self._store, campaign)
        if state != entry.state or begun - entry.made_at >= LASTING_S:
            entry.report = make()
            entry.state = state
            entry.made_at = begun
        ended = self._clock()
        entry.fresh_until = ended + max(FRESH_S, REST * (ended - begun))
        return entry.report


def state_of(store: Store, campaign: str) -> Hashable:
    """What a report rests on, cheaply: its last judgement, the decisions, and the settings."""
    last = store.judgements(campaign, current_only=False, limit=1)
    decisions = store.rater_decisions(campaign, current_only=False)
    settings = store.campaign(campaign)
    return (
        last[0].id if last else None,
        len(decisions),
        len(store.adjudications(campaign, current_only=False)),
        repr((settings.overlap, settings.settings)),
        len(store.accounts()),  # one less: somebody has erased themselves, and has another name
    )
