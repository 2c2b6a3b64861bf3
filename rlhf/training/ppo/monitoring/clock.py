"""Where the time of a run goes: seconds and tokens a second of each phase."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

TIMING_PREFIXES = ("seconds/", "tokens_per_second/")
"""Metrics that no two runs share, so that a comparison of logs leaves them out."""


class PhaseClock:
    """Adds up the seconds and tokens of phases until `metrics` is asked for.

    `synchronize` waits for a device that works behind Python's back (torch.cuda.synchronize), so
    that a phase is charged for its own kernels. `now` is monotonic: a clock that is set back
    while a run is under way changes nothing.
    """

    def __init__(
        self,
        *,
        synchronize: Callable[[], None] | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._synchronize = synchronize or (lambda: None)
        self._now = now
        self._seconds: dict[str, float] = {}
        self._tokens: dict[str, int] = {}

    @contextmanager
    def phase(self, name: str, *, tokens: int = 0) -> Iterator[None]:
        """Charge the block's seconds, and `tokens`, to a phase; also when the block raises."""
        self._synchronize()
        began = self._now()
        try:
            yield
        finally:
            self._synchronize()
            self._seconds[name] = self._seconds.get(name, 0.0) + self._now() - began
            self.count(name, tokens)

    def count(self, name: str, tokens: int) -> None:
        """Charge tokens to a phase whose number of them is known only after it."""
        self._tokens[name] = self._tokens.get(name, 0) + tokens

    def metrics(self) -> dict[str, float]:
        """`seconds/PHASE` and `tokens_per_second/PHASE` of this rank since the last call."""
        found = {f"seconds/{name}": seconds for name, seconds in self._seconds.items()}
        for name, seconds in self._seconds.items():
            if self._tokens.get(name) and seconds > 0:
                found[f"tokens_per_second/{name}"] = self._tokens[name] / seconds
        self._seconds.clear()
        self._tokens.clear()
        return found
