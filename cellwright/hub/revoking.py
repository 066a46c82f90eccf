"""Taking grants back: one, all of a device, or all of a tenant. Edges hear of it with what they shall hold.

The hub keeps no list of grants that it gave, and a grant lives for a day at most; so what was taken back by name is remembered for a
day and told to edges for as long, and a tenant may have `MOST` such names at once. Taking back all needs no list.
"""

from __future__ import annotations

from typing import Literal

import sqlalchemy as sa

from cellwright.database import upsert
from cellwright.hub import tables
from cellwright.hub.contract import Revocation
from cellwright.hub.core import Core, Who, tenant_exists
from cellwright.hub.grant import LEEWAY_S, LONGEST_LIFE_S
from cellwright.hub.refusals import TooLarge

MOST = 256  # of a tenant at once; each is told to every edge that holds a model of the tenant


class Revoking(Core):
    """Take grants back."""

    def revoke_grants(self, who: Who, tenant: str) -> float:
        """Take back all grants on a tenant's models: edges believe those from now on only, as soon as they hear of it.

        Devices ask for another and get one, unless their tokens were revoked before. Returns since when. Raises NotFound.
        """
        t, r = tables.tenants, tables.revocations
        with self.changing() as connection:
            tenant_exists(connection, tenant)
            from_s = _latest(connection, self.clock(), t.c.grants_from_s, t.c.name == tenant)
            connection.execute(sa.update(t).where(t.c.name == tenant).values(grants_from_s=from_s))
            connection.execute(sa.delete(r).where(r.c.tenant == tenant, r.c.from_s <= from_s))  # these are among all
            self.note(connection, who, "grants revoke", tenant)
        return from_s

    def revoke_grant(self, who: Who, grant: str) -> Revocation:
        """Take one grant of the asking tenant back, by its id; whether there ever was one of that id, the hub does not know.

        Raises:
            TooLarge: too many were taken back by name within a day.
        """
        return self._take_back(who, "grant", grant)

    def revoke_device(self, who: Who, device: str) -> Revocation:
        """Take back what a device was given on the asking tenant's models until now. Raises TooLarge."""
        return self._take_back(who, "device", device)

    def revocations(self, who: Who) -> tuple[Revocation, ...]:
        """What the asking tenant took back by name, and edges are still told of; the newest last."""
        t = tables.revocations
        wanted = sa.select(t).where(t.c.tenant == who.tenant, t.c.until_s > self.clock()).order_by(t.c.from_s, t.c.kind, t.c.name)
        with self.store.read() as connection:
            found = connection.execute(wanted).mappings()
            return tuple(Revocation(**{key: row[key] for key in Revocation.model_fields}) for row in found)

    def _take_back(self, who: Who, kind: Literal["grant", "device"], name: str) -> Revocation:
        now, t = self.clock(), tables.revocations
        keys = {"tenant": who.tenant, "kind": kind, "name": name}
        with self.changing() as connection:
            forget_expired(connection, now)
            _refuse_more(connection, keys)
            same = (t.c.tenant == who.tenant, t.c.kind == kind, t.c.name == name)
            from_s = _latest(connection, now, t.c.from_s, *same)
            found = Revocation(kind=kind, name=name, from_s=from_s, until_s=from_s + LONGEST_LIFE_S + LEEWAY_S)
            upsert(connection, tables.revocations, keys, {"from_s": found.from_s, "until_s": found.until_s})
            self.note(connection, who, "grants revoke", f"{kind} {name}")
        return found


def forget_expired(connection: sa.Connection, now_s: float) -> int:
    """Drop names whose grants have all expired; returns how many."""
    t = tables.revocations
    return connection.execute(sa.delete(t).where(t.c.until_s <= now_s)).rowcount


def _latest(connection: sa.Connection, now_s: float, kept: sa.Column[float], *where: sa.ColumnElement[bool]) -> float:
    """Now, or the later time that is kept: where the clock stepped back, what was taken back stays taken back."""
    return max(now_s, connection.execute(sa.select(kept).where(*where)).scalar_one_or_none() or 0.0)


def _refuse_more(connection: sa.Connection, keys: dict[str, str]) -> None:
    """Room for one of a new name; one that is there needs none. Raises TooLarge."""
    t = tables.revocations
    same = sa.and_(t.c.kind == keys["kind"], t.c.name == keys["name"])
    others = sa.select(sa.func.count()).select_from(t).where(t.c.tenant == keys["tenant"], sa.not_(same))
    if connection.execute(others).scalar_one() >= MOST:
        raise TooLarge(
            f"at most {MOST} grants and devices are taken back by name within a day; take back all grants (DELETE /v1/grants, "
            "`cellwright hub revoke-grants`), or wait until older ones have expired"
        )
