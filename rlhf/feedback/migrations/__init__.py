"""Versions of the store's tables. `Store.open` brings an older store to the newest by itself.

A new version: change `rlhf/feedback/tables.py`, add `versions/NNNN_what.py`, append its
revision to `REVISIONS`. Versions are frozen once released: they never import the tables.
"""

from sqlalchemy import Connection

REVISIONS = ("0001", "0002", "0003")
"""Every version that this program knows, oldest first."""

HEAD = REVISIONS[-1]


def upgrade(connection: Connection, revision: str = HEAD) -> None:
    """Bring the store behind `connection` to `revision`, within its transaction."""
    from alembic import command  # only here: most stores are new enough already
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "rlhf.feedback:migrations")
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
