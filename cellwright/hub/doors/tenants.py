"""Doors of the hub itself, of tenants, tokens and keys."""

from __future__ import annotations

import httpx

from cellwright.hub import contract as c
from cellwright.hub.doors.base import Asking


class Tenants(Asking):
    """The hub, tenants, tokens and keys."""

    def hub_key(self) -> str:
        """The hub's public key (PEM); no token is needed."""
        return self._get("/v1/hub", dict[str, str])["key"]

    def ready(self) -> bool:
        """Whether the hub answers and can use its database and its blobs."""
        try:
            return self.http.get("/readyz").is_success
        except httpx.HTTPError:
            return False

    def me(self) -> c.Tenant:
        """The tenant of the token, its quota and what it uses."""
        return self._get("/v1/tenant", c.Tenant)

    def tenants(self) -> tuple[c.Tenant, ...]:
        """All tenants (operator)."""
        return self._get("/v1/tenants", tuple[c.Tenant, ...])

    def put_tenant(self, tenant: str, form: c.TenantForm) -> c.Tenant:
        """Make or change a tenant (operator)."""
        return self._put(f"/v1/tenants/{tenant}", form, c.Tenant)

    def delete_tenant(self, tenant: str) -> None:
        """Delete a tenant that has no models any more (operator)."""
        self._send("DELETE", f"/v1/tenants/{tenant}")

    def tokens(self, tenant: str) -> tuple[c.Token, ...]:
        """Tokens of a tenant, without their secrets (operator)."""
        return self._get(f"/v1/tenants/{tenant}/tokens", tuple[c.Token, ...])

    def new_token(self, tenant: str, form: c.TokenForm) -> c.NewToken:
        """A new token; its secret is told this once (operator)."""
        return self._post(f"/v1/tenants/{tenant}/tokens", form, c.NewToken)

    def revoke_token(self, tenant: str, id_or_name: str) -> tuple[c.Token, ...]:
        """Revoke a token by its id, or all of a name (operator)."""
        return self._parsed(self._send("DELETE", f"/v1/tenants/{tenant}/tokens/{id_or_name}"), tuple[c.Token, ...])

    def keys(self) -> tuple[c.PublicKey, ...]:
        """Public keys whose signatures on this tenant's bundles are believed, the hub's first."""
        return self._get("/v1/keys", tuple[c.PublicKey, ...])

    def add_key(self, pem: str) -> c.PublicKey:
        """Believe a public key on this tenant's bundles."""
        return self._post("/v1/keys", c.KeyForm(pem=pem), c.PublicKey)

    def remove_key(self, key: str) -> None:
        """Believe a key no more."""
        self._send("DELETE", f"/v1/keys/{key}")
