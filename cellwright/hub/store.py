"""The hub's own database: which tables, and how one speaks of it. database.py says how it is used."""

from __future__ import annotations

from pathlib import Path

from cellwright.database import Database, Purpose
from cellwright.errors import HubError, HubRefused

PURPOSE = Purpose(
    who="the hub",
    setting="hub.database",
    example="hub.db",
    migrations=Path(__file__).parent / "migrations",
    lock=0x4855_4221,
    error=HubError,
    refused=HubRefused,
)


def open_store(url: str) -> Database:
    """Open, create and migrate the hub's database. Raises WrongUse, HubError."""
    return Database(url, PURPOSE)
