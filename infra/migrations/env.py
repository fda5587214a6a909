"""Runs the versions on the connection that `infra.database` gives."""

from alembic import context

from infra.database import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA)
with context.begin_transaction():
    context.run_migrations()
