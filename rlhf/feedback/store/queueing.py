"""A lock whose threads are served in the order in which they came."""

import threading
from collections import deque


class FairLock:
    """A re-entrant lock that goes to the thread that has waited longest.

    Python's own goes to whichever thread happens to run: under a hundred raters some would wait
    for seconds while others are served at once.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._waiting: deque[tuple[int, threading.Lock]] = deque()
        self._owner: int | None = None
        self._depth = 0

    def __enter__(self) -> None:
        me, turn = threading.get_ident(), threading.Lock()
        turn.acquire()
        with self._guard:
            if self._owner in (None, me):
                self._owner = me
                self._depth += 1
                return
            self._waiting.append((me, turn))
        try:
            turn.acquire()  # until the one before us hands over
        except BaseException:
            self._give_up((me, turn))
            raise

    def __exit__(self, *_: object) -> None:
        with self._guard:
            self._depth -= 1
            if self._depth == 0:
                self._hand_over()

    def _hand_over(self) -> None:
        """Make the longest waiting thread the owner; `_guard` is held."""
        self._owner = None
        if self._waiting:
            self._owner, turn = self._waiting.popleft()
            self._depth = 1
            turn.release()

    def _give_up(self, place: tuple[int, threading.Lock]) -> None:
        """Leave the queue after an interrupt, or the lock if it has come meanwhile."""
        with self._guard:
            if place in self._waiting:
                self._waiting.remove(place)
                return
            self._depth = 0
            self._hand_over()
