"""Alembic's entry: runs the versions over the connection that `upgrade` was given."""

from alembic import context

from rlhf.feedback.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=False,  # the caller's transaction holds the tables and their version
)
context.run_migrations()
