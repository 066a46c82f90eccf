"""The FMLMS's own database: which tables, and how one speaks of it. cellwright/database.py says how it is used."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from cellwright import database
from cellwright.database import Database, Purpose, upsert
from cellwright.errors import FederationError, Refused

__all__ = ["Store", "migrate", "migration_sql", "upsert"]

PURPOSE = Purpose(
    who="the FMLMS",
    setting="federation.database",
    example="federation.db",
    migrations=Path(__file__).parent / "migrations",
    lock=0x4D33_3387,
    error=FederationError,
    refused=Refused,
)


class Store(Database):
    """The FMLMS's database; safe to share between threads."""

    def __init__(self, url: str) -> None:
        """Open, create and migrate the database at an SQLAlchemy URL. Raises WrongUse, FederationError."""
        super().__init__(url, PURPOSE)


def migrate(connection: sa.Connection, revision: str = "head") -> None:
    """Bring a database, empty or of an earlier version, to a version; within a transaction that writes. Raises FederationError."""
    database.migrate(connection, PURPOSE, revision)


def migration_sql(dialect: str) -> str:
    """The statements that make the database, for an administrator who runs them by hand."""
    return database.migration_sql(dialect, PURPOSE)
