"""Alembic's entry: upgrades over the connection that database.py hands over, or writes the SQL where there is none."""

from __future__ import annotations

from alembic import context

from cellwright.federation.management.tables import schema

if context.is_offline_mode():
    context.configure(dialect_name=context.config.attributes["dialect"], target_metadata=schema, as_sql=True)
else:
    context.configure(connection=context.config.attributes["connection"], target_metadata=schema)
with context.begin_transaction():
    context.run_migrations()
