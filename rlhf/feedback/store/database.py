"""Connections to the store's database: SQLite by path, PostgreSQL by URL, one behaviour."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Table, create_engine, event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from rlhf.errors import ConfigError, DataError, RlhfError, StageError

BUSY_TIMEOUT_MS = 15_000
_write_locks: dict[str, threading.RLock] = {}
_write_locks_guard = threading.Lock()


class Database:
    """Transactions on one database, for any number of threads and processes.

    A write transaction inside another of the same thread joins it, so that several writes can
    be made one.
    """

    def __init__(self, url: URL):
        self.url = url
        self.where = (
            str(url.database) if url.get_backend_name() == "sqlite" else url.render_as_string()
        )
        self._engine = _make_engine(url)
        self._lock = _write_lock(url)
        self._open = threading.local()

    @property
    def is_sqlite(self) -> bool:
        return self._engine.dialect.name == "sqlite"

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that sees one state of the store; within a write, that write's own."""
        joined = getattr(self._open, "connection", None)
        if joined is not None:
            yield joined
            return
        with self._said_plainly(), self._engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A write transaction: all of it is kept, on disk, or none.

        Writers of one process queue at a lock, since SQLite's own waiting is unfair.
        """
        joined = getattr(self._open, "connection", None)
        if joined is not None:
            yield joined
            return
        with self._said_plainly(), self._lock, self._engine.connect() as connection:
            writer = connection.execution_options(rlhf_write=True)
            with writer.begin():
                self._open.connection = writer
                try:
                    yield writer
                finally:
                    self._open.connection = None

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def _said_plainly(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            raise as_rlhf_error(self.where, error) from error
        except UnicodeEncodeError:
            what = "a text holds half a character (a lone surrogate)"
            raise DataError(f"{self.where}: {what}; write it as Unicode") from None
        except OverflowError:
            raise DataError(f"{self.where}: a number is too large to be kept") from None


def parse_location(location: str | Path) -> URL:
    """The database URL for a SQLite path or a URL; ConfigError for one that cannot be used."""
    text = str(location)
    if "://" not in text:
        return URL.create("sqlite", database=text)
    try:
        url = make_url(text)
        if url.get_backend_name() == "postgresql":
            return url.set(drivername="postgresql+psycopg")
        if url.get_backend_name() == "sqlite" and url.database:
            return url
    except (ArgumentError, NoSuchModuleError, ValueError):
        pass
    raise ConfigError(
        f"{text.partition('://')[0]}://...: give a SQLite path or a postgresql:// URL"
    )


def as_rlhf_error(where: str, error: DBAPIError) -> RlhfError:
    """A database's complaint as one line for people, with the right exit code."""
    reason = " ".join(str(error.orig).split())
    if isinstance(error.orig, sqlite3.DatabaseError):
        if "malformed" in reason or "not a database" in reason:
            return DataError(f"{where}: damaged store ({reason}); restore it from a backup")
        if "locked" in reason:
            return StageError(f"{where}: another program keeps the store locked; try again")
    if "out of range" in reason:
        return DataError(f"{where}: a number is too large to be kept")
    if "append-only" in reason or "never changed" in reason:
        return DataError(f"{where}: refused: {reason}")
    if "connect" in reason.lower():
        return ConfigError(f"{where}: no connection ({reason}); is the server running?")
    return StageError(f"{where}: the store cannot be used ({reason}); check its disk and rights")


def insert_missing(connection: Connection, table: Table, rows: list[dict[str, Any]]) -> None:
    """Insert the rows whose key is not there yet, though others insert at the same time."""
    engine = postgresql if connection.dialect.name == "postgresql" else sqlite
    if rows:
        connection.execute(engine.insert(table).on_conflict_do_nothing(), rows)


def _make_engine(url: URL) -> Engine:
    try:
        if url.get_backend_name() != "sqlite":
            return create_engine(url, pool_pre_ping=True, isolation_level="READ COMMITTED")
        engine = create_engine(
            url, pool_size=16, max_overflow=48, connect_args={"check_same_thread": False}
        )
    except ModuleNotFoundError as error:
        hint = "pip install 'rlhf-loop[postgres]'"
        raise ConfigError(f"PostgreSQL needs the module {error.name}; {hint}") from None
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, record: object) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves: see _begin_sqlite
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
    cursor.execute("PRAGMA journal_mode=WAL")
    # In WAL mode `normal` loses nothing when the process dies; after a power cut the last
    # transactions may be missing, and the store is whole all the same.
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # A deferred transaction that turns into a write one fails at once when another has written
    write = connection.get_execution_options().get("rlhf_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def _write_lock(url: URL) -> AbstractContextManager[Any]:
    if url.get_backend_name() != "sqlite":
        return nullcontext()  # PostgreSQL queues writers itself
    key = str(Path(str(url.database)).resolve())
    with _write_locks_guard:
        return _write_locks.setdefault(key, threading.RLock())
