"""Opening a store: made when wanted, brought to the newest version, refused when it is none."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sqlalchemy import Connection, inspect, text
from sqlalchemy.engine import URL

from rlhf.errors import ConfigError, DataError, StageError
from rlhf.feedback.migrations import HEAD, REVISIONS, upgrade
from rlhf.feedback.store.database import (
    DamagedRowError,
    Database,
    decoding,
    is_open_here,
    parse_location,
    sqlite_error,
)
from rlhf.manifest import make_folder

_MAGIC = b"SQLite format 3\0"
_LOCK_KEY = 0x726C6866  # "rlhf": two processes must not make the tables at once
_SMALL_BYTES = 64 * 2**20
_ADVICE = "restore it from a backup, or choose another --store"


def open_database(location: str | Path, *, create: bool) -> Database:
    """The database at a path or URL, at the newest version.

    Raises ConfigError when there is none and `create` is false, DataError when what is there is
    damaged, no store, or of a newer version; in those cases nothing of it is changed.
    """
    url = parse_location(location)
    if url.get_backend_name() == "sqlite":
        _check_sqlite_file(url, create=create)
    database = Database(url)
    try:
        _bring_to_head(database, create=create)
    except BaseException:
        database.close()
        raise
    return database


def _bring_to_head(database: Database, *, create: bool) -> None:
    with database.reading() as connection:
        revision = store_revision(connection)
    if revision is None and not create:
        raise ConfigError(
            f"{database.where}: no feedback store there; `rlhf feedback import` makes one"
        )
    _refuse_unknown_revision(revision, database.where)
    if revision == HEAD:
        return
    with database.writing() as connection:
        if not database.is_sqlite:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK_KEY})
        upgrade(connection)


def store_revision(connection: Connection) -> str | None:
    """The version of the tables behind a connection, or None where there are none."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _refuse_unknown_revision(revision: str | None, where: str) -> None:
    if revision is None or revision in REVISIONS:
        return
    if revision.isdecimal() and revision > HEAD:
        raise DataError(
            f"{where}: a store of version {revision}, newer than this program's {HEAD}; "
            "upgrade rlhf-loop"
        )
    raise DataError(f"{where}: a database of another program; choose another --store")


def _check_sqlite_file(url: URL, *, create: bool) -> None:
    path = Path(str(url.database))
    if path.is_dir():
        raise ConfigError(f"{path}: a folder, not a feedback store; give the path of its file")
    if not path.exists():
        if not create:
            raise ConfigError(f"{path}: no such feedback store; `rlhf feedback import` makes one")
        make_folder(path.parent)
        return
    if is_open_here(path):
        return  # it was looked into then, and must not be opened past SQLite now
    head = _first_bytes(path)
    if not head:
        raise DataError(f"{path}: an empty file, not a feedback store; delete it or {_ADVICE}")
    if not head.startswith(_MAGIC) or len(head) < 100:
        raise DataError(f"{path}: damaged, or no feedback store; {_ADVICE}")
    _check_length(path, head)
    _check_contents(path)


def _first_bytes(path: Path) -> bytes:
    """The file header. A file is empty for a moment while another process makes the store."""
    for _ in range(10):
        try:
            with path.open("rb") as stream:
                head = stream.read(100)
        except OSError as error:
            reason = f"cannot be read ({error.strerror}); check its rights"
            raise StageError(f"{path}: {reason}") from None
        if head:
            break
        time.sleep(0.05)
    return head


def _check_length(path: Path, head: bytes) -> None:
    log = path.with_name(path.name + "-wal")
    if log.exists() and log.stat().st_size:
        return  # pages may still wait in the log: SQLite itself must tell
    page_bytes = int.from_bytes(head[16:18], "big")
    page_bytes = 65536 if page_bytes == 1 else page_bytes
    expected = page_bytes * int.from_bytes(head[28:32], "big")
    if path.stat().st_size < expected:
        raise DataError(f"{path}: damaged store: it ends too early (truncated); {_ADVICE}")


def _check_contents(path: Path) -> None:
    """Look into the file without writing to it: opening it for use would switch it to WAL."""
    with _damage_named(path), closing(_read_only(path)) as connection, decoding():
        tables = {
            name
            for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        }
        if not tables:
            (pages,) = connection.execute("PRAGMA page_count").fetchone()
            if pages > 1:
                raise DataError(f"{path}: damaged store: its tables are gone; {_ADVICE}")
            return  # an upgrade that was interrupted before it had begun
        if not {"alembic_version", "campaigns", "judgements"} <= tables:
            raise DataError(f"{path}: a database of another program; choose another --store")
        if path.stat().st_size <= _SMALL_BYTES:
            (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if found != "ok":
                raise DataError(f"{path}: damaged store ({' '.join(found.split())}); {_ADVICE}")


def _read_only(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=15)


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise sqlite_error(str(path), " ".join(str(error).split())) from None
    except DamagedRowError as error:
        raise DataError(f"{path}: damaged store ({error}); {_ADVICE}") from None
