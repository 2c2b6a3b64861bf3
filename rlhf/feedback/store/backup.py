"""A copy of a store that is in use: whole, and as it was at one moment."""

import os
import sqlite3
import uuid
from contextlib import closing
from pathlib import Path

from rlhf.errors import ConfigError, StageError
from rlhf.feedback.store.database import Database, sqlite_error
from rlhf.manifest import make_folder


def back_up(database: Database, path: str | Path) -> None:
    """Copy a SQLite store to a new file, on disk when this returns; writers go on meanwhile.

    All that was acknowledged before is in the copy. ConfigError when the file is there already,
    and for PostgreSQL, which has a command of its own.
    """
    target = Path(path)
    if not database.is_sqlite:
        raise ConfigError(
            f"{database.where}: PostgreSQL makes its own backups: "
            f"pg_dump --format=custom --file={target} {database.url_for_people}"
        )
    _refuse_existing(target)
    make_folder(target.parent)
    unfinished = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    try:
        _copy(Path(str(database.url.database)), unfinished)
        _sync(unfinished)
        os.link(unfinished, target)  # unlike a rename it never writes over a file
        _sync(target.parent)
    except FileExistsError:
        _refuse_existing(target)
        raise
    except sqlite3.Error as error:
        raise sqlite_error(str(target), " ".join(str(error).split())) from None
    except OSError as error:
        raise StageError(f"{target}: cannot be written ({error.strerror}); free its disk") from None
    finally:
        unfinished.unlink(missing_ok=True)


def _refuse_existing(target: Path) -> None:
    if target.exists() or target.is_symlink():
        raise ConfigError(f"{target}: is there already; give the backup a new name")


def _copy(source: Path, target: Path) -> None:
    address = f"{source.resolve().as_uri()}?mode=ro"
    with (
        closing(sqlite3.connect(address, uri=True, timeout=15)) as reader,
        closing(sqlite3.connect(target)) as writer,
    ):
        reader.backup(writer)  # in one step: one state of the store, whoever writes meanwhile
        writer.execute("PRAGMA journal_mode=DELETE")  # all in one file, fit for copying about


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
