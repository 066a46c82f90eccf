"""Tenants, their quotas, and the keys whose signatures are believed on their bundles."""

from __future__ import annotations

import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from cellwright.bundle.keys import Trust, key_id, public_pem
from cellwright.database import upsert
from cellwright.hub import tables
from cellwright.hub.contract import OPERATOR, PublicKey, Quota, Tenant, TenantForm, Usage
from cellwright.hub.core import Core, Who, tenant_exists
from cellwright.hub.refusals import Conflict, HubRefused, NotFound, TooLarge
from cellwright.hub.retention import drop

_MOST_KEYS = 16


class Tenants(Core):
    """Make, change and delete tenants; register their keys."""

    def put_tenant(self, who: Who, tenant: str, form: TenantForm) -> Tenant:
        """Make or change a tenant."""
        t, values = tables.tenants, {"title": form.title, "quota": form.quota.model_dump_json()}
        with self.store.write() as connection:
            if not connection.execute(sa.update(t).where(t.c.name == tenant).values(**values)).rowcount:
                now = self.clock()
                connection.execute(sa.insert(t).values(name=tenant, created_s=now, grants_from_s=now, **values))
            self.note(connection, who, "tenant put", tenant, form.quota.model_dump_json())
            return _tenant(connection, tenant)

    def tenant(self, tenant: str) -> Tenant:
        """A tenant, its quota and what it uses. Raises NotFound."""
        with self.store.read() as connection:
            return _tenant(connection, tenant)

    def tenants(self) -> tuple[Tenant, ...]:
        """All tenants, by name."""
        with self.store.read() as connection:
            names = connection.execute(sa.select(tables.tenants.c.name).order_by(tables.tenants.c.name)).scalars().all()
            return tuple(_tenant(connection, name) for name in names)

    def delete_tenant(self, who: Who, tenant: str) -> None:
        """Delete a tenant with its tokens, keys, areas and rules.

        Raises:
            Conflict: it has models or uploads, or is the operator.
        """
        with self.changing() as connection:
            found = _tenant(connection, tenant)
            if tenant == OPERATOR or found.usage.models or found.usage.uploads:
                raise Conflict(
                    f"tenant '{tenant}' has {found.usage.models} models and {found.usage.uploads} open uploads; delete those first "
                    f"('{OPERATOR}' itself stays)"
                )
            for table in (
                tables.tokens,
                tables.keys,
                tables.areas,
                tables.rules,
                tables.publications,
                tables.revocations,
            ):
                connection.execute(sa.delete(table).where(table.c.tenant == tenant))
            for table in (tables.fetches, tables.qos):
                drop(connection, table, table.c.tenant == tenant)
            connection.execute(sa.delete(tables.tenants).where(tables.tenants.c.name == tenant))
            self.note(connection, who, "tenant delete", tenant)

    def keys(self, tenant: str) -> tuple[PublicKey, ...]:
        """Keys that are believed on a tenant's bundles: the hub's own, which signs what it wraps, then those registered."""
        with self.store.read() as connection:
            own = PublicKey(id=key_id(self.key.public_key()), pem=self.key_pem)
            return (own, *(k for k in registered(connection, tenant) if k.id != own.id))

    def add_key(self, who: Who, pem: str) -> PublicKey:
        """Believe a public key (PEM, Ed25519) on the asking tenant's bundles. Raises HubRefused."""
        key = public_key(pem)
        found = PublicKey(id=key_id(key), pem=public_pem(key).decode())
        with self.changing() as connection:
            if len(registered(connection, who.tenant)) >= _MOST_KEYS:
                raise HubRefused(f"a tenant has at most {_MOST_KEYS} keys; remove one first")
            upsert(connection, tables.keys, {"tenant": who.tenant, "id": found.id}, {"pem": found.pem})
            self.note(connection, who, "key add", found.id)
        return found

    def remove_key(self, who: Who, id_: str) -> None:
        """Believe a key no more. Raises NotFound."""
        t = tables.keys
        with self.changing() as connection:
            if not connection.execute(sa.delete(t).where(t.c.tenant == who.tenant, t.c.id == id_)).rowcount:
                raise NotFound(f"there is no registered key '{id_}'; GET /v1/keys lists them")
            self.note(connection, who, "key remove", id_)

    def trust(self, tenant: str) -> Trust:
        """As `keys`, to verify with."""
        return {key.id: public_key(key.pem) for key in self.keys(tenant)}


def registered(connection: sa.Connection, tenant: str) -> tuple[PublicKey, ...]:
    """Keys that a tenant has registered, by id."""
    t = tables.keys
    found = connection.execute(sa.select(t.c.id, t.c.pem).where(t.c.tenant == tenant).order_by(t.c.id))
    return tuple(PublicKey(id=row.id, pem=row.pem) for row in found)


def public_key(pem: str) -> Ed25519PublicKey:
    """A key from PEM. Raises HubRefused."""
    try:
        key = load_pem_public_key(pem.encode())
    except ValueError as error:
        raise HubRefused(f"that is not a public key in PEM ({error}); `cellwright` keeps its own in .cellwright/keys") from None
    if not isinstance(key, Ed25519PublicKey):
        raise HubRefused(f"expected an Ed25519 public key, found {type(key).__name__}")
    return key


def usage(connection: sa.Connection, tenant: str) -> Usage:
    """What a tenant has now."""

    def total(table: sa.Table, *columns: sa.ColumnElement[int]) -> sa.Row:
        return connection.execute(sa.select(*columns).select_from(table).where(table.c.tenant == tenant)).one()

    count = sa.func.count()
    releases, stored = total(tables.releases, count, sa.func.coalesce(sa.func.sum(tables.releases.c.bytes), 0))
    uploads, coming = total(tables.uploads, count, sa.func.coalesce(sa.func.sum(tables.uploads.c.bytes), 0))
    return Usage(bytes=int(stored + coming), models=total(tables.models, count)[0], releases=releases, uploads=uploads)


def quota_of(connection: sa.Connection, tenant: str) -> Quota:
    """The most that a tenant may have."""
    t = tables.tenants
    return Quota.model_validate_json(connection.execute(sa.select(t.c.quota).where(t.c.name == tenant)).scalar_one())


def check_quota(connection: sa.Connection, tenant: str, *, models: int = 0, uploads: int = 0, more_bytes: int = 0) -> None:
    """Raises TooLarge where so much more is above the tenant's quota."""
    now, quota = usage(connection, tenant), quota_of(connection, tenant)
    asked = {
        "models": (now.models + models, quota.models, models),
        "open uploads": (now.uploads + uploads, quota.uploads, uploads),
        "bytes": (now.bytes + more_bytes, quota.bytes, more_bytes),
    }
    for what, (wanted, most, more) in asked.items():
        if more and wanted > most:
            raise TooLarge(f"the quota is {most:,} {what}, this would make {wanted:,}; delete some, or ask the operator for more")


def _tenant(connection: sa.Connection, tenant: str) -> Tenant:
    tenant_exists(connection, tenant)
    row = connection.execute(sa.select(tables.tenants).where(tables.tenants.c.name == tenant)).mappings().one()
    return Tenant(
        name=tenant,
        title=row["title"],
        quota=Quota.model_validate_json(row["quota"]),
        created_s=row["created_s"],
        usage=usage(connection, tenant),
    )
