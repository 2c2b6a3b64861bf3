"""Rows that one transaction asks for again and again: read once, until something changes them."""

from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import Connection

Row = TypeVar("Row")
_KEY = "rlhf_rows"


def remembered(connection: Connection, key: tuple[str, str], read: Callable[[], Row]) -> Row:
    """What `read` gives, read once in this transaction for `key` (the table and the name)."""
    rows = connection.info.setdefault(_KEY, {})
    if key not in rows:
        rows[key] = read()
    found: Row = rows[key]
    return found


def forget(connection: Connection) -> None:
    """Read everything anew: a transaction begins, or a row that may be remembered was written."""
    connection.info[_KEY] = {}
