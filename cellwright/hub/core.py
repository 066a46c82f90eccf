"""What all parts of the hub share: its database, blobs, key and clock; who asks; and how a change reaches the edges."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cellwright.bundle.keys import public_pem
from cellwright.database import Database
from cellwright.hub import tables
from cellwright.hub.audit import append
from cellwright.hub.bell import Bell
from cellwright.hub.blobs import Blobs
from cellwright.hub.contract import OPERATOR, Scope
from cellwright.hub.meter import Meter
from cellwright.hub.refusals import NotFound, TooMany


@dataclass(frozen=True)
class Who:
    """Whom a token stands for."""

    token: str  # id
    tenant: str
    name: str
    scopes: frozenset[Scope]

    @property
    def operator(self) -> bool:
        return "operator" in self.scopes

    @property
    def label(self) -> str:
        """As the audit log names them."""
        return f"{self.name} ({self.token})"


LOCAL = Who("local", OPERATOR, "local", frozenset({"operator"}))  # whoever runs commands where the database lies


@dataclass(frozen=True)
class Settings:
    """Bounds of a hub; params.yaml, section hub, has them."""

    upload_lifetime_s: float = 86_400.0  # an upload that nobody went on with for so long is thrown away
    file_bytes: int = 16 * 1024**3  # largest file taken
    alive_s: float = 60.0  # an edge that was not heard of for longer is not offered to devices
    grant_lifetime_s: float = 3_600.0
    retention_s: float = 90 * 86_400.0  # reports of fetches and QoS sessions are thrown away after so long
    audit_reads: bool = False  # whether matches and grants are in the audit log too, not only changes


@dataclass
class Core:
    """State and settings of a hub."""

    store: Database
    blobs: Blobs
    folder: Path  # of what is on its way: uploads/, staging/
    key: Ed25519PrivateKey
    settings: Settings
    clock: Callable[[], float]  # seconds since 1970
    bell: Bell = field(default_factory=Bell)
    meter: Meter = field(default_factory=Meter)

    @property
    def key_pem(self) -> str:
        """The hub's public key."""
        return public_pem(self.key.public_key()).decode()

    def note(self, connection: sa.Connection, who: Who, action: str, subject: str, detail: str = "") -> None:
        """Write a line of the audit log, in the transaction of what it tells of."""
        append(connection, time_s=self.clock(), tenant=who.tenant, who=who.label, action=action, subject=subject, detail=detail)

    def count(self, account: str, per_minute: int, requests: int = 1) -> None:
        """Count requests of a tenant, or of one of the operator's edges. Raises TooMany."""
        wait_s = self.meter.take(account, per_minute, self.clock(), requests)
        if wait_s:
            raise TooMany(f"tenant '{account}' may ask {per_minute} times a minute; come back in {wait_s:.1f} s", wait_s)

    @contextmanager
    def changing(
        self, *, edge: str | None = None, concerns: Callable[[sa.Connection], bool] = lambda _connection: True
    ) -> Iterator[sa.Connection]:
        """A transaction that writes and may change what edges shall hold: their states are computed anew in it, and those that wait
        for a change are told once it is kept.

        Args:
            edge: the only one whose state can become another.
            concerns: whether any can, by what there is before the change.
        """
        from cellwright.hub.desired import refresh

        with self.store.write() as connection:
            concerned = concerns(connection)
            yield connection
            changed = refresh(connection, self.key_pem, edge) if concerned else ()
        if changed:
            self.bell.ring(frozenset(changed))


def tenant_exists(connection: sa.Connection, tenant: str) -> None:
    """Raises NotFound."""
    if connection.execute(sa.select(tables.tenants.c.name).where(tables.tenants.c.name == tenant)).first() is None:
        raise NotFound(f"there is no tenant '{tenant}'; `cellwright hub tenant list` shows them")
