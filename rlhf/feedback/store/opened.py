"""An opened store: where it is, its transactions, and its copy."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from rlhf.feedback.store import backup
from rlhf.feedback.store.database import Database
from rlhf.feedback.store.opening import open_database


class OpenedStore:
    """A feedback store's database, for any number of threads; several processes may share it."""

    def __init__(self, database: Database):
        self._database = database

    @classmethod
    def open(cls, location: str | Path, *, create: bool = False) -> Self:
        """The store at a SQLite path or database URL, brought to the newest version.

        Raises ConfigError when there is none (and `create` is false), DataError when the file
        is damaged, another program's, or written by a newer version; it is then left as it was.
        """
        return cls(open_database(location, create=create))

    @property
    def location(self) -> str:
        """The path or URL (without its password) that the store was opened at."""
        return self._database.where

    def close(self) -> None:
        """Give back the connections; a closed store is opened again by its next use."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @contextmanager
    def atomically(self) -> Iterator[None]:
        """Make all writes of this thread within the block one: kept whole, or not at all."""
        with self._database.writing():
            yield

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Make all reads of this thread within the block see one state; it holds up no writer."""
        with self._database.reading():
            yield

    def backup(self, path: str | Path) -> None:
        """Copy the store to a new file while it is in use; on disk when this returns.

        ConfigError when the file is there already, and for PostgreSQL, whose own command it
        names.
        """
        backup.back_up(self._database, path)


def moment(now: datetime | None) -> datetime:
    """The time that was given, or else the clock's."""
    return datetime.now(UTC) if now is None else now
