"""The one progress bar of all stages: it shows the time left, once a task has taken a while."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from tqdm import tqdm

SHORT_S = 3
"""What is done within so many seconds needs no bar."""

_Item = TypeVar("_Item")
Advance = Callable[[int, int], None]


@contextmanager
def progress(task: str, total: int, unit: str = "row") -> Iterator[Advance]:
    """A bar on standard error, and the callback (done, total) that moves it."""
    with tqdm(
        total=total, desc=task, unit=unit, file=sys.stderr, delay=SHORT_S, leave=False
    ) as bar:

        def advance(done: int, _: int) -> None:
            bar.update(done - bar.n)

        yield advance


def with_progress(task: str, items: Iterable[_Item]) -> Iterable[_Item]:
    """The same items, with the bar as they go by."""
    bar: Iterable[_Item] = tqdm(
        items, desc=task, unit="row", file=sys.stderr, delay=SHORT_S, leave=False
    )
    return bar
