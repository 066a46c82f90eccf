"""The hub, as functions: what an operator's cloud knows of tenants, models, edges and devices.

    with open_hub(folder) as hub:
        hub.put_tenant(LOCAL, "company-a", TenantForm())
        token = hub.new_token(LOCAL, "company-a", TokenForm(name="ci", scopes=("models:write", "publish")))
        who = hub.authenticate(token.token)
        ...

tenants.py, tokens.py  who    models.py, uploads.py, intake.py  what    places.py, desired.py  where    publication.py  which version
matching.py  for whom    revoking.py  no more    reports.py, retention.py, audit.py  what happened
api*.py, serve.py  over HTTP    client.py  from the other side
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import sqlalchemy as sa

from cellwright.bundle.keys import signing_key
from cellwright.hub import tables
from cellwright.hub.blobs import open_blobs
from cellwright.hub.contract import OPERATOR, TenantForm
from cellwright.hub.core import LOCAL, Settings
from cellwright.hub.matching import Matching
from cellwright.hub.models import Models
from cellwright.hub.places import Areas, Placement
from cellwright.hub.publication import Publishing
from cellwright.hub.reports import Reports
from cellwright.hub.retention import Retention
from cellwright.hub.revoking import Revoking
from cellwright.hub.store import open_store
from cellwright.hub.tokens import Tokens
from cellwright.hub.uploads import Uploads


class Hub(Tokens, Revoking, Models, Uploads, Areas, Placement, Publishing, Matching, Reports, Retention):
    """The hub over one database, which other processes may use at the same time; safe to share between threads."""

    def check(self) -> None:
        """Raises HubError where the database or the blobs cannot be used."""
        with self.store.read() as connection:
            connection.execute(sa.select(tables.tenants.c.name).limit(1)).first()
        self.blobs.check()

    def close(self) -> None:
        """Close the database."""
        self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def open_hub(
    folder: Path,
    *,
    database: str | None = None,
    blobs: str | None = None,
    keys: Path | None = None,
    settings: Settings | None = None,
    clock: Callable[[], float] = time.time,
) -> Hub:
    """Open a hub whose state lies in `folder`: hub.db, blobs/, uploads/, keys/. Made as needed, with the tenant of the operator.

    Args:
        database: an SQLAlchemy URL instead of hub.db.
        blobs: a folder or an fsspec URL (s3://…) instead of blobs/.
        keys: folder of the signing key instead of keys/.
        clock: seconds since 1970.

    Raises:
        WrongUse: a URL that cannot be meant. HubError: the database or the blobs cannot be used. BundleError: the key cannot be.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    store = open_store(database or f"sqlite:///{folder / 'hub.db'}")
    place = open_blobs(blobs or str(folder / "blobs"))
    hub = Hub(store, place, folder, signing_key(keys or folder / "keys"), settings or Settings(), clock)
    _found(hub)
    return hub


def _found(hub: Hub) -> None:
    """The operator's own tenant; and where the key is another than before, the edges are told."""
    with hub.store.read() as connection:
        there = connection.execute(sa.select(tables.tenants.c.name).where(tables.tenants.c.name == OPERATOR)).first()
    if there is None:
        hub.put_tenant(LOCAL, OPERATOR, TenantForm(title="The operator"))
    with hub.changing():
        pass  # states are computed anew when the block ends
