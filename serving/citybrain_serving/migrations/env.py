"""Runs migrations on the connection that :func:`citybrain_serving.database.migrate` opened."""

from alembic import context

from citybrain_serving.database import VERSIONS
from citybrain_serving.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSIONS,
    render_as_batch=True,  # SQLite changes a table by copying it
)
context.run_migrations()
